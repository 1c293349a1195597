"""What is personal in Square's objects: removed, or made a keyed hash, before anything is stored.

Taken from every schema of Square's OpenAPI description (2025-08-20) that an order, payment, refund, timecard or webhook
event can hold: Address, FulfillmentRecipient, Card, CardPaymentDetails, BankAccountPaymentDetails, ACHDetails,
CashAppDetails, AfterpayDetails, ClearpayDetails, SquareAccountDetails, and the fields in which people write freely.
Left as it is: ids of team members (an id is all that labor tables have), a store's own address and telephone, the reason
of a refund (of the return, not of a person), and the metadata of other apps, in which Square forbids personal data.
"""

from flux_pipelines.providers.base import Redaction

REDACTION = Redaction(
    remove=frozenset(
        {
            # cards and accounts
            "last_4",
            "bin",
            "exp_month",
            "exp_year",
            "cardholder_name",
            "account_number_suffix",
            "routing_number",
            "payment_source_token",
            # people
            "buyer_email_address",
            "buyer_full_name",
            "buyer_cashtag",
            "email_address",
            "first_name",
            "last_name",
            "billing_address",
            "shipping_address",
            # links that show a receipt or a parcel to whoever has them
            "receipt_url",
            "tracking_url",
            "tracking_number",
            # what people write freely: names and telephone numbers, often enough
            "note",
            "shipping_note",
            "dropoff_notes",
            "ticket_name",
            "curbside_pickup_details",
        }
    ),
    # The same customer or card stays recognisable as the same, which is all that an analyst needs of it.
    pseudonymise=frozenset({"customer_id", "customer_ids", "fingerprint"}),
    within=frozenset(
        {
            ("display_name", "recipient"),
            ("phone_number", "recipient"),
            ("address", "recipient"),
            ("id", "card"),  # of a card that is on file
            ("reference_id", "card"),
        }
    ),
)
