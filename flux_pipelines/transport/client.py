"""The one way out over HTTP: breaker, then for each attempt limit, token, sending, classification, audit.

This is the only module that imports httpx.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

import httpx
import msgspec

from flux_pipelines.domain.addresses import is_loopback
from flux_pipelines.domain.decoding import UnboundedError, decoder
from flux_pipelines.domain.errors import (
    AmbiguousSendError,
    BadResponseError,
    ConfigurationError,
    FluxError,
    PermissionLostError,
    ProviderUnavailableError,
    RateLimitedError,
    ReauthorizationNeededError,
)
from flux_pipelines.transport.audit import AuditSink, CallRecord, Stats, count
from flux_pipelines.transport.breaker import Breaker
from flux_pipelines.transport.errors import (
    AnsweredError,
    Problem,
    RefusedError,
    TransportClosedError,
    read_problem,
)
from flux_pipelines.transport.limits import Limit, RateBudget
from flux_pipelines.transport.redact import redact, redact_url, remember, remember_headers
from flux_pipelines.transport.retry import RetryPolicy, quota, retry_after

if TYPE_CHECKING:
    from flux_pipelines.domain.credentials import Credentials

T = TypeVar("T")
#: A query; as pairs, where a name comes several times.
Params = Mapping[str, str | int] | Sequence[tuple[str, str | int]]

# A quota header is taken over into the shared limit only when little is left: doing so costs a transaction.
_QUOTA_NEARLY_USED = 32

#: The content encodings that are offered, and the window bits with which zlib reads each.
_ENCODINGS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_PIECE = 1024 * 1024

_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
_WRONG_HERE = (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL, UnicodeEncodeError)


@dataclass(frozen=True, slots=True)
class Timeout:
    """Seconds allowed for each phase of an attempt.

    Args:
        connect: to open a connection.
        read: for each further piece of the answer.
        write: for each piece of the request.
        pool: for a free connection of this client.
        total: for the whole answer, so that one that trickles for ever ends as well.

    """

    connect: float = 10.0
    read: float = 60.0
    write: float = 30.0
    pool: float = 120.0
    total: float = 300.0


@dataclass(frozen=True, slots=True)
class Response(Generic[T]):
    """An answer that was accepted.

    Args:
        status: the HTTP status, 200 to 299 (300 to 399 where a redirect was expected).
        headers: the answer's headers; names in any case.
        content: the body as received, decompressed.
        attempts: how many requests it took.
        waited: seconds spent waiting for the rate limit, over all attempts.
        value: what the caller's `decode` made of the body; None without one.

    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    content: bytes = field(repr=False)
    attempts: int
    waited: float
    value: T = field(repr=False)


@dataclass(slots=True)
class _Outcome:
    """What came of one attempt: an answer or an error, and whether to try again."""

    waited: float
    error: FluxError | None = None
    again: bool = False
    retry_after: float | None = None
    status: int | None = None
    first_byte: float | None = None  # seconds from sending to the answer's headers
    unauthorized: bool = False
    failure: bool = False  # of the provider: counts for the breaker
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    value: Any = None


@dataclass(slots=True)
class _Call:
    """One request with what its attempts have in common."""

    method: str
    url: httpx.URL
    shown: str
    headers: dict[str, str]
    content: bytes | None
    idempotent: bool
    keys: list[str]
    auth: bool
    decode: Callable[[bytes], Any] | None
    redirect: bool = False
    conflicts: bool = True  # whether to try again after 409
    attempts: int = 0
    waited: float = 0.0
    renewed: bool = False
    token: str = field(default="", repr=False)


class ApiClient:
    """Calls to one provider for one connection. Safe to use from threads; made by `Transport.client`."""

    def __init__(
        self,
        *,
        provider: str,
        connection: str,
        base_url: str,
        limits: Sequence[Limit],
        places: Sequence[threading.Semaphore],
        credentials: Credentials | None,
        headers: Mapping[str, str],
        budget: RateBudget,
        breaker: Breaker,
        audit: AuditSink,
        retry_policy: RetryPolicy,
        timeout: Timeout,
        authorize: Callable[[str], Mapping[str, str]],
        verify: Any,
        max_body_bytes: int,
        give_up_after: float | None,
        sleep: Callable[[float], None],
    ) -> None:
        self._provider = provider
        self._connection = connection
        self._base_url = base_url.rstrip("/")
        self._limits = [limit for limit in limits if limit.per == "location"]
        whole = {"connection": f"{provider}/{connection}/*", "app": f"{provider}/*"}
        self._beside = {key: [one for one in limits if one.per == per] for per, key in whole.items()}
        self._places = tuple(places)
        self._credentials = credentials
        self._headers = dict(headers)
        self._budget = budget
        self._breaker = breaker
        self._audit = audit
        self._retry_policy = retry_policy
        self._timeout = timeout
        self._authorize = authorize
        self._max_body_bytes = max_body_bytes
        self._give_up_after = give_up_after
        self._sleep = sleep
        self._stats = Stats()
        self._renewing = threading.Lock()
        self._http = httpx.Client(
            verify=verify,
            timeout=httpx.Timeout(connect=timeout.connect, read=timeout.read, write=timeout.write, pool=timeout.pool),
            # 16 kept open; more are allowed for a moment, because a request that queues for a connection after its slot
            # in the rate limit has come would reach the server late, in somebody else's slot.
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=30.0),
            follow_redirects=False,
            trust_env=not is_loopback(httpx.URL(base_url).host),
            headers={"Accept-Encoding": ", ".join(_ENCODINGS)},
            # Cookies would tie requests of different windows, and of different people, together.
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
        )

    @property
    def stats(self) -> Stats:
        """What this client has spent so far."""
        return self._stats.snapshot()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def pause(self, seconds: float) -> None:
        """Wait between calls, for work that goes on at the provider.

        Raises:
            TransportClosedError: the transport was closed meanwhile.

        """
        self._sleep(seconds)

    @overload
    def request(
        self,
        method: str,
        path: str,
        *,
        idempotent: bool,
        json: Any = ...,
        content: bytes | None = ...,
        params: Params | None = ...,
        headers: Mapping[str, str] | None = ...,
        budget: Sequence[str] = ...,
        auth: bool = ...,
        expect: Literal["json", "bytes", "redirect"] = ...,
        repeat_conflicts: bool = ...,
    ) -> Response[None]: ...

    @overload
    def request(
        self,
        method: str,
        path: str,
        *,
        idempotent: bool,
        json: Any = ...,
        content: bytes | None = ...,
        params: Params | None = ...,
        headers: Mapping[str, str] | None = ...,
        budget: Sequence[str] = ...,
        auth: bool = ...,
        expect: Literal["json", "bytes", "redirect"] = ...,
        repeat_conflicts: bool = ...,
        decode: Callable[[bytes], T],
    ) -> Response[T]: ...

    def request(
        self,
        method: str,
        path: str,
        *,
        idempotent: bool,
        json: Any = None,
        content: bytes | None = None,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        budget: Sequence[str] = (),
        auth: bool = True,
        expect: Literal["json", "bytes", "redirect"] = "json",
        repeat_conflicts: bool = True,
        decode: Callable[[bytes], Any] | None = None,
    ) -> Response[Any]:
        """Send a request until it is answered well, within the policy, and return the answer.

        Args:
            method: the HTTP method.
            path: the path after the base URL, beginning with a slash.
            idempotent: whether sending it twice does what sending it once does: a read, or a write with an idempotency key.
                Only then is it sent again after an attempt whose effect is unknown.
            json: a body to encode as JSON.
            content: a body as it is; give its Content-Type in `headers`.
            params: the query; as pairs, where a name comes several times.
            headers: further headers of this request.
            budget: what it counts against (location ids); nothing means the connection as a whole.
            auth: whether to send the connection's token.
            expect: `json`: the body must be a whole JSON document; `bytes`: any body, an empty one too; `redirect`: a
                3xx with a Location, which is not followed (consent pages).
            repeat_conflicts: whether 409 is passing; False where it says that the request will never be answered as it is (a
                page of something that was published anew).
            decode: makes the caller's value of the body; raising `msgspec.DecodeError` or `ValueError` says that the body is
                damaged, `AnsweredError` that the provider says in it that the request failed. It is then the only check of
                the body.

        Raises:
            CircuitOpenError: the provider failed repeatedly and is not called for now.
            RateLimitedError: no room in the rate limit, or 429 to the end.
            ReauthorizationNeededError: 401, with a renewed token too.
            PermissionLostError: 403.
            RefusedError: any other 4xx, or a redirect; with the provider's error codes.
            BadResponseError: the answers were damaged to the end.
            ProviderUnavailableError: no answer, 408 or 5xx to the end.
            AmbiguousSendError: a request that must not be repeated was sent, and whether it took effect is unknown.
            ConfigurationError: the request cannot be sent as it is.
            TransportClosedError: the transport was closed while the call waited.

        """
        if self._http.is_closed:
            raise TransportClosedError("the client was closed", connection=self._connection or None)
        call = self._prepare(method, path, json, content, params, headers, budget, auth)
        call.idempotent = idempotent
        call.decode = decode or (_whole_json if expect == "json" else None)
        call.redirect = expect == "redirect"
        call.conflicts = repeat_conflicts
        self._breaker.check()
        outcome = self._retry_policy.run(lambda: self._attempt(call), sleep=self._sleep)
        if outcome.error is not None:
            raise outcome.error
        assert outcome.status is not None  # noqa: S101 - an outcome without error has an answer
        value = outcome.value if decode is not None else None
        return Response(outcome.status, outcome.headers, outcome.content, call.attempts, call.waited, value)

    def _prepare(
        self,
        method: str,
        path: str,
        json: Any,
        content: bytes | None,
        params: Params | None,
        headers: Mapping[str, str] | None,
        budget: Sequence[str],
        auth: bool,
    ) -> _Call:
        merged = {**self._headers, **(headers or {})}
        remember_headers(merged)
        if isinstance(json, Mapping):
            remember_headers({name: value for name, value in json.items() if isinstance(value, str)})
        if json is not None:
            content = msgspec.json.encode(json)
            merged.setdefault("Content-Type", "application/json")
        try:
            pairs = list(params.items()) if isinstance(params, Mapping) else list(params or ())
            url = httpx.URL(self._base_url + path, params=pairs) if pairs else httpx.URL(self._base_url + path)
        except httpx.InvalidURL:
            url = None
        if url is None:
            raise ConfigurationError("the URL of a request is not valid", connection=self._connection or None)
        prefix = f"{self._provider}/{self._connection}/"
        return _Call(
            method=method,
            url=url,
            shown=redact_url(str(url)),
            headers=merged,
            content=content,
            idempotent=False,
            keys=[prefix + key for key in (budget or ("-",))],
            auth=auth and self._credentials is not None,
            decode=None,
        )

    def _attempt(self, call: _Call) -> _Outcome:
        outcome = self._send_once(call)
        if outcome.unauthorized and call.auth and not call.renewed:
            call.renewed = True
            self._renew(call.token)
            earlier = outcome.waited
            outcome = self._send_once(call)
            outcome.waited += earlier
        return outcome

    def _renew(self, rejected: str) -> None:
        """Have the rejected token replaced, once, however many threads had it rejected."""
        assert self._credentials is not None  # noqa: S101 - only authenticated calls get here
        with self._renewing:
            if self._credentials.token() == rejected:
                remember(self._credentials.renew(rejected))

    def _send_once(self, call: _Call) -> _Outcome:
        with ExitStack() as held:
            for place in self._places:  # the same order everywhere, so that nobody waits for whom it holds up
                held.enter_context(place)
            return self._send(call)

    def _send(self, call: _Call) -> _Outcome:
        def last_thing() -> None:
            if call.auth and self._credentials is not None:
                call.token = self._credentials.token()

        grant = self._budget.acquire(
            call.keys,
            self._limits,
            beside=self._beside,
            give_up_after=self._give_up_after,
            prepare=last_thing,
            connection=self._connection or None,
        )
        waited = grant.waited
        call.attempts += 1
        call.waited += waited
        at = datetime.now(UTC)
        started = time.perf_counter()
        outcome = self._exchange(call, started)
        seconds = time.perf_counter() - started
        outcome.waited = waited
        self._budget.confirm(grant, seconds if outcome.first_byte is None else outcome.first_byte)
        self._classify(call, outcome, at)
        self._record_outcome(call, outcome)
        record = CallRecord(
            provider=self._provider,
            connection=self._connection,
            method=call.method,
            url=call.shown,
            status=outcome.status,
            seconds=seconds,
            attempt=call.attempts,
            bytes=len(outcome.content),
            waited=waited,
            error=type(outcome.error).__name__ if outcome.error is not None else None,
            at=at,
            keys=tuple(call.keys),
        )
        self._stats.add(record)
        count(record)
        self._audit.record(record)
        return outcome

    def _exchange(self, call: _Call, started: float) -> _Outcome:
        """Send and receive. Errors become outcomes: what httpx raises holds the request, and with it the token."""
        headers = call.headers
        if call.auth:
            if not (call.token.isascii() and call.token.isprintable()):
                return _Outcome(
                    0.0,
                    ConfigurationError(
                        "the stored token has characters that no header may have",
                        connection=self._connection,
                        next_step="Reconnect the account.",
                    ),
                )
            remember(call.token)
            proof = self._authorize(call.token)
            remember_headers(proof)
            headers = {**headers, **proof}
        response: httpx.Response | None = None
        first_byte: float | None = None
        try:
            request = self._http.build_request(call.method, call.url, headers=headers, content=call.content)
            response = self._http.send(request, stream=True)
            first_byte = time.perf_counter() - started
            content = self._read(response, started)
        except _WRONG_HERE as error:
            return _Outcome(0.0, self._error(ConfigurationError, call, f"cannot be sent ({type(error).__name__})"))
        except _NEVER_SENT as error:
            return self._lost(call, error, sent=False)
        except httpx.RequestError as error:
            if response is not None and not response.is_success:
                # The status alone says what a refusal means; only its explanation is lost.
                return _Outcome(0.0, status=response.status_code, headers=response.headers)
            return self._lost(call, error, sent=True, status=response.status_code if response is not None else None)
        except _BodyTooLargeError:
            assert response is not None  # noqa: S101 - raised while reading it
            what = f"was answered with more than {self._max_body_bytes:,} bytes"
            return _Outcome(0.0, self._unusable(call, what, rerun_helps=False), status=response.status_code)
        except _EncodingError as error:
            assert response is not None  # noqa: S101 - raised while reading it
            what = f"was answered in the content encoding {str(error)[:40]!r}, which was not offered"
            return _Outcome(0.0, self._unusable(call, what, rerun_helps=False), status=response.status_code)
        finally:
            if response is not None:
                response.close()
        return _Outcome(
            0.0, status=response.status_code, headers=response.headers, content=content, first_byte=first_byte
        )

    def _read(self, response: httpx.Response, started: float) -> bytes:
        chunks: list[bytes] = []
        size = 0
        for chunk in _decompressed(response):
            size += len(chunk)
            if size > self._max_body_bytes:
                raise _BodyTooLargeError
            if time.perf_counter() - started > self._timeout.total:
                raise httpx.ReadTimeout("the answer did not end in time", request=response.request)
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _lost(self, call: _Call, error: httpx.RequestError, *, sent: bool, status: int | None = None) -> _Outcome:
        reason = redact(str(error)) or type(error).__name__
        if not sent or call.idempotent:
            kind = ProviderUnavailableError if status is None else BadResponseError
            told = f"got no complete answer ({type(error).__name__}: {reason})"
            if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                # What the operating system says, without its number: `[Errno 111] Connection refused`.
                said = reason.rpartition("] ")[2]
                told = f"could not be reached ({said[:1].lower()}{said[1:]})"
            problem: FluxError = self._error(kind, call, told)
            return _Outcome(0.0, problem, again=True, status=status, failure=True)
        return _Outcome(0.0, self._ambiguous(call, f"{type(error).__name__}: {reason}"), status=status, failure=True)

    def _classify(self, call: _Call, outcome: _Outcome, now: datetime) -> None:
        """Decide what an answer means. Sets `error` and whether to try again."""
        status = outcome.status
        if outcome.error is not None or status is None:
            return
        if call.redirect and 300 <= status < 400 and "location" in outcome.headers:
            return
        if 200 <= status < 300 and not call.redirect:
            self._accept(call, outcome)
            return
        problem = read_problem(outcome.content)
        said = f"was answered {status}" + (f" ({problem})" if str(problem) else "")
        outcome.retry_after = retry_after(outcome.headers, now)
        if outcome.retry_after:
            said += f" and asks to wait {outcome.retry_after:.0f} s"
        if status == 401 and call.auth:
            outcome.unauthorized = True
            outcome.error = self._error(ReauthorizationNeededError, call, said)
        elif status == 403 and call.auth:
            outcome.error = self._error(PermissionLostError, call, said)
        elif status == 429:
            outcome.again = True
            outcome.error = self._error(RateLimitedError, call, said)
            if outcome.retry_after is None:
                allowed = quota(outcome.headers, now)
                if allowed is not None:
                    outcome.retry_after = max(0.0, (allowed[1] - now).total_seconds())
        elif status == 408 or status >= 500:
            outcome.failure = True
            outcome.again = call.idempotent
            outcome.error = (
                self._error(ProviderUnavailableError, call, said) if call.idempotent else self._ambiguous(call, said)
            )
        else:
            outcome.again = status == 409 and call.idempotent and call.conflicts
            outcome.error = self._refused(call, status, said, problem)

    def _accept(self, call: _Call, outcome: _Outcome) -> None:
        if call.decode is None:
            return
        damage = ""
        if not outcome.content:
            damage = "an empty body"
        elif outcome.content[:64].lstrip()[:1] == b"<":
            damage = "an HTML page instead of JSON"
        else:
            try:
                outcome.value = call.decode(outcome.content)
            except AnsweredError as said:
                self._say(call, outcome, said)
            except (msgspec.ValidationError, UnboundedError) as error:
                # Whole, but not what the provider documents: the next answer would be the same.
                what = f"was answered with a body of another form ({redact(str(error))[:300]})"
                outcome.error = self._unusable(call, what, rerun_helps=False)
            except (msgspec.DecodeError, ValueError) as error:
                damage = f"a damaged body of {len(outcome.content)} bytes ({redact(str(error))[:300]})"
        if damage:
            outcome.failure = True
            outcome.again = call.idempotent
            outcome.error = self._unusable(call, f"was answered {outcome.status} with {damage}")

    def _say(self, call: _Call, outcome: _Outcome, said: AnsweredError) -> None:
        """Take over what the body of a good status says of the request."""
        what = f"was answered {outcome.status}: {redact(said.what)[:300]}"
        if issubclass(said.kind, RefusedError):
            outcome.error = self._refused(call, outcome.status or 0, what, Problem(said.codes, said.what))
        else:
            outcome.error = self._error(said.kind, call, what)
        outcome.again = said.again
        outcome.retry_after = said.retry_after
        outcome.failure = said.failure

    def _record_outcome(self, call: _Call, outcome: _Outcome) -> None:
        """Tell the breaker and the budget what the attempt showed."""
        if outcome.failure:
            self._breaker.failed()
        elif outcome.status is not None and outcome.status != 429:
            self._breaker.succeeded()
        allowed = quota(outcome.headers, datetime.now(UTC)) if outcome.headers else None
        if allowed is not None and allowed[0] <= _QUOTA_NEARLY_USED and self._limits:
            for key in call.keys:
                self._budget.adapt(key, *allowed)

    def _refused(self, call: _Call, status: int, said: str, problem: Problem) -> RefusedError:
        redirect = 300 <= status < 400
        return RefusedError(
            f"{call.method} {call.shown} {said}",
            status=status,
            codes=problem.codes,
            connection=self._connection or None,
            next_step="Check the connection's `base_url`: the address answers with a redirect." if redirect else None,
        )

    def _unusable(self, call: _Call, what: str, *, rerun_helps: bool | None = None) -> FluxError:
        """A good status over a body that tells nothing: what a write did is then unknown."""
        if call.idempotent:
            return self._error(BadResponseError, call, what, rerun_helps=rerun_helps)
        return self._ambiguous(call, what)

    def _ambiguous(self, call: _Call, reason: str) -> AmbiguousSendError:
        return self._error(AmbiguousSendError, call, f"was sent, and whether it took effect is unknown: {reason}")

    def _error(self, kind: type[E], call: _Call, what: str, *, rerun_helps: bool | None = None) -> E:
        return kind(
            f"{call.method} {call.shown} {what}",
            connection=self._connection or None,
            rerun_helps=rerun_helps,
            attempts=call.attempts or 1,
        )


E = TypeVar("E", bound=FluxError)


class _BodyTooLargeError(Exception):
    """The answer's body passed the cap."""


class _EncodingError(Exception):
    """The answer's body is encoded in another way than was offered."""


def _decompressed(response: httpx.Response) -> Iterator[bytes]:
    """Yield the body in pieces of at most `_PIECE` bytes, however well it is compressed.

    The HTTP library decompresses all of what one reading from the network gave at once: 96 KB of Zstandard are 4 GB.

    Raises:
        _EncodingError: the encoding was not offered, or there are several.
        httpx.DecodingError: the body is not what its encoding says, or is cut off.

    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        yield from response.iter_raw()
        return
    if encoding not in _ENCODINGS:
        raise _EncodingError(encoding)
    body = zlib.decompressobj(_ENCODINGS[encoding])
    empty = True
    try:
        for received in response.iter_raw():
            empty = False
            while received and not body.eof:
                yield body.decompress(received, _PIECE)
                received = body.unconsumed_tail
        yield body.flush()
    except zlib.error as error:
        raise httpx.DecodingError(str(error), request=response.request) from error
    if not (body.eof or empty):
        raise httpx.DecodingError("the compressed body is cut off", request=response.request)


def bearer(token: str) -> dict[str, str]:
    """Return the header of RFC 6750."""
    return {"Authorization": f"Bearer {token}"}


#: Checks that a body is one whole JSON document, without making objects of it.
_whole_json = decoder(msgspec.Raw)
