package authz

import "barong/internal/fault"

// A refusal is a denial that the engine knows by name. Its status is the one in the catalogue of codes.
type refusal struct {
	code   string
	status int
}

func refusalOf(code fault.Code) refusal {
	return refusal{string(code), code.Status()}
}

var (
	ambiguousPath      = refusalOf("authz.ambiguous_path")
	malformedRequest   = refusalOf(fault.MalformedRequest)
	permissionDenied   = refusalOf("authz.permission_denied")
	missingCSRFToken   = refusalOf("authz.missing_csrf_token")
	csrfTokenMismatch  = refusalOf("authz.csrf_token_mismatch")
	invalidSession     = refusalOf("authz.invalid_session")
	sessionMismatch    = refusalOf("authz.client_session_mismatch")
	userNotActive      = refusalOf("authz.user_not_active")
	invalidPermission  = refusalOf("authz.invalid_permission")
	invalidKeyHeaders  = refusalOf("authz.invalid_api_key_headers")
	unexistentKey      = refusalOf("authz.unexistent_apikey")
	nonceNotValid      = refusalOf("authz.nonce_not_valid_timestamp")
	nonceExpired       = refusalOf("authz.nonce_expired")
	nonceUsed          = refusalOf("authz.signature_blacklisted")
	malformedSignature = refusalOf("authz.malformed_signature")
	invalidSignature   = refusalOf("authz.invalid_signature")
	keyNotActive       = refusalOf("authz.apikey_not_active")
	disabled2FA        = refusalOf("authz.disabled_2fa")
	unavailable        = refusalOf(fault.Unavailable)
)

func (d *Decision) refuse(r refusal) {
	d.Effect, d.Status, d.Code = Deny, r.status, r.code
}
