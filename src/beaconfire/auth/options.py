"""Options of token verification."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from beaconfire.base.options import SECRET, Options
from beaconfire.base.units import Seconds


class TokenOptions(Options, frozen=True, kw_only=True):
    """Verification of connection and subscription JWTs. With several keys, the `alg` of the token selects the key."""

    hmac_secret: Annotated[str, Meta(description="Secret for HS256, HS384 and HS512.", extra=SECRET)] = ""
    hmac_previous_secret: Annotated[
        str,
        Meta(
            description="The secret before the last rotation, accepted until hmac_previous_secret_valid_until.",
            extra=SECRET,
        ),
    ] = ""
    hmac_previous_secret_valid_until: Annotated[
        int, Meta(ge=0, description="Unix time until which the previous secret is accepted; 0 means no end.")
    ] = 0
    rsa_public_key: Annotated[str, Meta(description="PEM text of the key for RS256, RS384 and RS512.")] = ""
    ecdsa_public_key: Annotated[str, Meta(description="PEM text of the key for ES256, ES384 and ES512.")] = ""
    eddsa_public_key: Annotated[str, Meta(description="PEM text of the key for EdDSA.")] = ""
    jwks_url: Annotated[str, Meta(description="URL of a JSON Web Key Set; the kid of the token selects the key.")] = ""
    jwks_cache_ttl: Annotated[Seconds, Meta(description="How long a fetched key set is used without a new fetch.")] = (
        Seconds(3600)
    )
    jwks_negative_ttl: Annotated[Seconds, Meta(description="Time after a failed fetch without a new attempt.")] = (
        Seconds(10)
    )
    jwks_timeout: Annotated[Seconds, Meta(description="Time limit for one fetch.")] = Seconds(3)
    audience: Annotated[str, Meta(description="Required aud claim; empty accepts any.")] = ""
    issuer: Annotated[str, Meta(description="Required iss claim; empty accepts any.")] = ""
    user_id_claim: Annotated[str, Meta(description="Claim that holds the user ID; empty means sub.")] = ""
    leeway: Annotated[Seconds, Meta(description="Tolerated clock difference when exp and nbf are checked.")] = Seconds(
        0
    )
