-- Sends signed events, each once. PAIRS holds an event id and a signature a line; BODY the rest of the event.
local pairs_of, body_head, body_tail = {}, nil, nil
local next_one = 0


function init(args)
  local lines = io.lines(os.getenv("PAIRS"))
  body_head, body_tail = lines(), lines()
  for line in lines do pairs_of[#pairs_of + 1] = line end
  wrk.method = "POST"
  wrk.headers["content-type"] = "application/json"
end

function request()
  next_one = next_one + 1
  local pair = pairs_of[next_one]
  if pair == nil then error("there are no more events to send") end
  wrk.headers["x-square-hmacsha256-signature"] = pair:sub(38)
  return wrk.format(nil, nil, nil, body_head .. pair:sub(1, 36) .. body_tail)
end

function done(summary, latency, requests)
  io.write(string.format(
    '{"requests": %d, "microseconds": %d, "failed": %d, "p50": %d, "p99": %d}\n',
    summary.requests, summary.duration,
    summary.errors.status + summary.errors.read + summary.errors.write + summary.errors.timeout + summary.errors.connect,
    latency:percentile(50), latency:percentile(99)))
end
