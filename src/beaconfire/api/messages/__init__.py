"""The requests and results of the server API, one module per group of methods.

Field names are those of the Centrifugo server API (section 20 of the protocol reference), so that its clients work
without changes. `exclude`, `b64conn_info`, `b64chan_info` and the `connections` method are additions of Beaconfire.

Unknown fields are ignored. A field without a default is required. null counts as a missing field, except in `data`,
where null is JSON's null. The OpenAPI document and `docs/reference/server-api.md` are generated from the descriptions.
"""
