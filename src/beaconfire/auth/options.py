"""The settings of tokens."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from beaconfire.base.options import SECRET, Options
from beaconfire.base.units import Seconds


class TokenOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How connection and subscription JWTs are verified. With several keys, the token's `alg` picks one."""

    hmac_secret: Annotated[str, Meta(description="Secret of HS256, HS384 and HS512.", extra=SECRET)] = ""
    hmac_previous_secret: Annotated[
        str,
        Meta(
            description="The secret before the last rotation, accepted until hmac_previous_secret_valid_until.",
            extra=SECRET,
        ),
    ] = ""
    hmac_previous_secret_valid_until: Annotated[
        int, Meta(ge=0, description="Unix time at which the previous secret ends; 0 is never.")
    ] = 0
    rsa_public_key: Annotated[str, Meta(description="PEM text of the key of RS256, RS384 and RS512.")] = ""
    ecdsa_public_key: Annotated[str, Meta(description="PEM text of the key of ES256, ES384 and ES512.")] = ""
    eddsa_public_key: Annotated[str, Meta(description="PEM text of the key of EdDSA.")] = ""
    jwks_url: Annotated[
        str, Meta(description="Where a JSON Web Key Set is fetched; keys are chosen by the token's kid.")
    ] = ""
    jwks_cache_ttl: Annotated[Seconds, Meta(description="How long a fetched key set is used unasked.")] = Seconds(3600)
    jwks_negative_ttl: Annotated[Seconds, Meta(description="How long nobody asks again after a failed fetch.")] = (
        Seconds(10)
    )
    jwks_timeout: Annotated[Seconds, Meta(description="How long one fetch may take.")] = Seconds(3)
    audience: Annotated[str, Meta(description="Required aud claim; empty accepts any.")] = ""
    issuer: Annotated[str, Meta(description="Required iss claim; empty accepts any.")] = ""
    user_id_claim: Annotated[str, Meta(description="The claim that holds the user id instead of sub.")] = ""
    leeway: Annotated[Seconds, Meta(description="Clock difference forgiven in exp and nbf.")] = Seconds(0)
