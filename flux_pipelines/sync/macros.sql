-- What the SQL of every provider can use, beside `minor_unit` and `business_date_of` (docs/add-a-provider.md).

-- Minor units added up; nothing comes to zero.
CREATE MACRO added(amounts) AS coalesce(list_sum(amounts)::BIGINT, 0::BIGINT);

-- Part of so many parts of a whole number that is not negative, rounded half up.
CREATE MACRO share_of(whole, part, parts) AS (2 * whole * part + parts) // (2 * parts);

-- The same of a number of either sign: half goes away from zero.
CREATE MACRO signed_share(whole, part, parts) AS
    (sign(whole) * share_of(abs(whole)::HUGEINT, part::HUGEINT, parts::HUGEINT))::BIGINT;

-- Minor units in a text, digits only: a cast would round 12.5 of them without a word.
CREATE MACRO whole(t) AS CASE WHEN regexp_full_match(t, '-?[0-9]{1,14}') THEN t::BIGINT END;

-- An amount in a text with any number of decimals; NULL where DECIMAL(18,4) cannot hold it exactly.
CREATE MACRO exact(x) AS CASE
    WHEN TRY_CAST(x AS DECIMAL(38,12)) = TRY_CAST(x AS DECIMAL(18,4)) THEN TRY_CAST(x AS DECIMAL(18,4))
END;

-- The same; one that is not told is zero.
CREATE MACRO exact_or_zero(x) AS CASE WHEN x IS NULL THEN 0::DECIMAL(18,4) ELSE exact(x) END;

-- Minor units as a person reads them.
CREATE MACRO in_words(amount, currency) AS (amount * minor_unit(currency))::DECIMAL(38,4)::VARCHAR || ' ' || currency;

-- Why nothing of a currency can be counted; NULL where it can.
CREATE MACRO no_currency(code) AS CASE WHEN minor_unit(code) IS NULL
    THEN 'its currency ' || coalesce(code, '(none)') || ' is not one that ISO 4217 gives a minor unit' END;

-- Records of a provider's own sales report (`providers/witness.py`), with the store's currency, whether there is a report and
-- why there is none; `lacking` is why one cannot be used, whatever the report is like. Tables by their names: they are not there yet.
CREATE MACRO reports(records := 'records', stores := 'stores') AS TABLE
    SELECT
        r.*,
        s.currency,
        r.kind IN ('reported', 'nothing_reported') AS reported,
        CASE WHEN reported THEN 'reported' ELSE 'no_witness' END AS status,
        r.object ->> '$.reason' AS reason,
        CASE
            WHEN s.currency IS NULL THEN 'its location is not known'
            WHEN NOT reported AND reason IS NULL THEN 'it does not say why there is no report'
        END AS lacking
    FROM query_table(records) AS r
    LEFT JOIN query_table(stores) AS s USING (location_id);
