package fault

import (
	"slices"
	"strings"
)

// An Entry is one line of the catalogue.
type Entry struct {
	Code    Code
	Status  int    // HTTP status of an answer that carries this code alone
	Meaning string // one sentence for the reference
}

// Catalogue lists every fixed code in byte order. The codes that follow a pattern are in Patterns.
func Catalogue() []Entry { return slices.Clone(catalogue[:]) }

// Patterns lists the families of codes that are spelled from a parameter or an attribute, most specific first. Their
// Code holds the variable parts in angle brackets.
func Patterns() []Entry { return slices.Clone(patterns[:]) }

// Lookup finds a code's entry: itself in the catalogue, or the family it belongs to, with Code set to the code asked
// for.
func Lookup(code Code) (Entry, bool) {
	i, ok := slices.BinarySearchFunc(catalogue[:], code, func(e Entry, c Code) int {
		return strings.Compare(string(e.Code), string(c))
	})
	if ok {
		return catalogue[i], true
	}
	if i := family(string(code)); i >= 0 {
		e := patterns[i]
		e.Code = code
		return e, true
	}
	return Entry{}, false
}

// Status is the HTTP status of an answer that carries this code alone, or 500 for a code that the catalogue does not know.
func (c Code) Status() int {
	e, ok := Lookup(c)
	if !ok {
		return 500
	}
	return e.Status
}

// Indexes into patterns.
const (
	mailToken = iota
	missing
	empty
	upload
	country
	attribute
)

var patterns = [...]Entry{
	mailToken: {"jwt.decode_and_verify.<word>", 422, "A confirmation or reset token does not verify; the word says why."},
	missing:   {"<group>.missing_<param>", 422, "A required parameter is absent (400 where the API reference lists it, unless BARONG_COMPAT=2.4.17)."},
	empty:     {"<group>.empty_<param>", 422, "A parameter is blank that must not be (400 for a required one where the API reference lists it, unless BARONG_COMPAT=2.4.17)."},
	upload:    {"upload.<sentence>", 422, "The uploaded file is refused for its type, size or extension; the sentence says why."},
	country:   {"country.must have alpha2 or alpha3 format", 422, "The country is no ISO 3166-1 code."},
	attribute: {"<attribute>.<detail>", 422, "A model attribute breaks a rule: blank, taken, invalid, too_short, too_long, inclusion, exclusion, invalid_format, doesnt_exist, requirements, weak, exists or confirmation."},
}

// family returns the index of the pattern that code follows, or -1.
func family(code string) int {
	if word, ok := strings.CutPrefix(code, "jwt.decode_and_verify."); ok && word != "" {
		return mailToken
	}
	if code == string(patterns[country].Code) {
		return country
	}
	dot := strings.LastIndexByte(code, '.')
	if strings.HasPrefix(code, "upload.") && len(code) > len("upload.") {
		if isDetail(code[len("upload."):]) {
			return attribute
		}
		return upload
	}
	if dot <= 0 || !isName(code[:dot]) || !isName(code[dot+1:]) {
		return -1
	}
	head, last := code[:dot], code[dot+1:]
	if strings.Contains(head, ".") {
		if group := strings.SplitN(head, ".", 2)[0]; group != "identity" && group != "resource" && group != "admin" {
			return -1
		}
		switch {
		case strings.HasPrefix(last, "missing_"):
			return missing
		case strings.HasPrefix(last, "empty_"):
			return empty
		}
		return -1
	}
	if isDetail(last) {
		return attribute
	}
	return -1
}

// isName reports whether s is one or more dotted words of lower-case letters, digits and underscores.
func isName(s string) bool {
	for word := range strings.SplitSeq(s, ".") {
		if word == "" {
			return false
		}
		for i := range len(word) {
			if c := word[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
				return false
			}
		}
	}
	return true
}

func isDetail(s string) bool {
	switch s {
	case "blank", "taken", "invalid", "too_short", "too_long", "inclusion", "exclusion", "invalid_format",
		"doesnt_exist", "requirements", "weak", "exists", "confirmation", "not_allowed",
		"invalid_extension", "too_small", "too_big", "too_large":
		return true
	}
	return false
}

// catalogue is sorted by code: Lookup searches it by halves.
var catalogue = [...]Entry{
	{"admin.ability.not_permitted", 401, "The caller's role lacks the ability that the call needs."},
	{"admin.activity.invalid_range", 422, "The range names no time column of activities."},
	{"admin.activity.non_string_action", 422, "The action filter is not a string."},
	{"admin.activity.non_string_email", 422, "The email filter is not a string."},
	{"admin.activity.non_string_target_uid", 422, "The target_uid filter is not a string."},
	{"admin.activity.non_string_topic", 422, "The topic filter is not a string."},
	{"admin.activity.non_string_uid", 422, "The uid filter is not a string."},
	{"admin.apikey.invalid_state", 422, "The state is neither active nor inactive."},
	{"admin.label.doesnt_exist", 404, "The user has no label with that key and scope."},
	{"admin.permission.doesnt_exist", 404, "No permission has that id."},
	{"admin.permission.invalid_subject", 422, "The subject is neither permission nor restriction."},
	{"admin.permission.last_superadmin", 422, "The change would leave nobody able to act as superadmin."},
	{"admin.permission.one_of_role_uid", 422, "Exactly one of role and uid must be given."},
	{"admin.permission.role_doesnt_exist", 422, "No permission exists for that role yet."},
	{"admin.permissions.invalid_action", 422, "The action is not one of accept, drop, audit."},
	{"admin.permissions.invalid_verb", 422, "The verb is not one of get, post, put, patch, delete, head, all."},
	{"admin.profiles.doesnt_exist_or_not_editable", 404, "The user has no submitted profile."},
	{"admin.profiles.superadmin_change", 422, "The profile belongs to somebody ranked above the caller."},
	{"admin.restriction.doesnt_exist", 404, "No restriction has that id."},
	{"admin.restriction.invalid_category", 422, "The category is not one a restriction can have."},
	{"admin.restriction.invalid_range", 422, "The range names no time column of restrictions."},
	{"admin.restriction.invalid_scope", 422, "The scope is not one of continent, country, ip, ip_subnet, all."},
	{"admin.restriction.invalid_state", 422, "The state is neither enabled nor disabled."},
	{"admin.storage.doesnt_exist", 404, "The user has no data storage of that title."},
	{"admin.user.doesnt_exist", 404, "No user has that uid."},
	{"admin.user.enable_2fa", 422, "The second factor cannot be switched on for somebody else."},
	{"admin.user.invalid_range", 422, "The range is neither created nor updated."},
	{"admin.user.non_boolean_extended", 422, "The extended flag is not a boolean."},
	{"admin.user.non_boolean_replace", 422, "The replace flag is not a boolean."},
	{"admin.user.one_of_state_otp", 422, "Exactly one of state and otp must be given."},
	{"admin.user.otp_no_change", 422, "The second factor already has that value."},
	{"admin.user.role_no_change", 422, "The user already has that role."},
	{"admin.user.state_no_change", 422, "The user already has that state."},
	{"admin.user.superadmin_change", 422, "The call edits or grants a rank above the caller's own."},
	{"admin.user.update_himself", 422, "The caller may not change their own account this way."},
	{"api_key.could_not_save_secret", 422, "The secret of the new API key could not be stored; nothing was created."},
	{"authz.access_restricted", 401, "A restriction refuses the client; sent by release 2.4.0 only."},
	{"authz.ambiguous_path", 400, "The path can be read in more than one way, so it is refused rather than guessed."},
	{"authz.apikey_not_active", 401, "The API key is switched off."},
	{"authz.client_session_mismatch", 401, "The client's address or user agent does not fit the session, or the session has expired."},
	{"authz.csrf_token_mismatch", 401, "The CSRF token sent differs from the session's."},
	{"authz.disabled_2fa", 401, "The API key's owner has the second factor switched off."},
	{"authz.invalid_api_key_headers", 422, "One or two of the three API-key headers are absent, one is blank, or they are switched off."},
	{"authz.invalid_permission", 401, "No rule accepts the role, method and path, or one drops it."},
	{"authz.invalid_session", 401, "There is no live session, or the API key's owner may not sign in."},
	{"authz.invalid_signature", 401, "The API-key signature is wrong, or covers too little of the request."},
	{"authz.malformed_request", 400, "A credential is duplicated, the method is odd, or a header is malformed or missing."},
	{"authz.malformed_signature", 422, "Signature-Input, Signature or Content-Digest cannot be read, or covers what cannot be told."},
	{"authz.missing_csrf_token", 401, "A state-changing request with a cookie has no CSRF token."},
	{"authz.nonce_expired", 401, "The API-key nonce, or the time of the signature, is too far from now, in the past or in the future."},
	{"authz.nonce_from_future", 401, "The API-key nonce lies in the future; sent by release 2.4.0 only."},
	{"authz.nonce_not_valid_timestamp", 401, "The API-key nonce is not a positive number of milliseconds."},
	{"authz.permission_denied", 401, "The path is on the block list."},
	{"authz.restrict.blacklist", 401, "A blacklist restriction matches; the rule's own code is the status."},
	{"authz.restrict.blocklogin", 401, "Signing in is switched off; the rule's own code is the status."},
	{"authz.restrict.maintenance", 471, "A maintenance restriction matches; the rule's own code is the status."},
	{"authz.signature_blacklisted", 401, "The API-key nonce was already used."},
	{"authz.unavailable", 503, "The check cannot be decided now: a store or a key is out of reach. It says nothing about the session."},
	{"authz.unexistent_apikey", 401, "No API key has that id."},
	{"authz.untrusted_proxy", 403, "A forward-auth or auth-request call came from a peer that is not a trusted proxy."},
	{"authz.user_not_active", 401, "The user is neither active nor pending."},
	{"identity.captcha.mandatory_fields", 400, "The captcha response lacks one of its fields."},
	{"identity.captcha.required", 400, "The operation needs a captcha response."},
	{"identity.captcha.verification_failed", 422, "The captcha provider did not confirm the response."},
	{"identity.provider.denied", 401, "The provider let nobody in: its page was left, or it refused."},
	{"identity.provider.domain_not_allowed", 401, "The provider is for verified addresses of other domains."},
	{"identity.provider.email_required", 401, "The provider tells no address that an account could have."},
	{"identity.provider.invalid_flow", 401, "This browser has begun no such sign-in, or it has expired, or was used before."},
	{"identity.provider.invalid_token", 401, "The provider's word about who it is does not count: it is forged, meant for others, or too old."},
	{"identity.provider.link_required", 401, "There is an account with that address: its owner signs in to it, and links the provider then."},
	{"identity.provider.no_account", 401, "No account is linked to who this is at the provider, and none is made for them."},
	{"identity.provider.unavailable", 503, "The provider does not answer as it should."},
	{"identity.session.banned", 401, "The account is banned."},
	{"identity.session.deleted", 401, "The account is deleted."},
	{"identity.session.invalid_captcha_format", 422, "The captcha response is neither a string nor an object."},
	{"identity.session.invalid_otp", 403, "The second-factor code is wrong."},
	{"identity.session.invalid_params", 401, "The e-mail or the password is wrong."},
	{"identity.session.invalid_passkey", 401, "The flow or the passkey is wrong: unknown, expired, used before, or not made for this service."},
	{"identity.session.missing_otp", 401, "The account needs a second-factor code."},
	{"identity.session.not_active", 401, "The account is not active."},
	{"identity.session.not_found", 404, "There is no session to end."},
	{"identity.user.access.invalid_token", 422, "The access token is unknown, used or expired."},
	{"identity.user.active_or_doesnt_exist", 422, "The account is active already, or does not exist."},
	{"identity.user.invalid_referral_format", 422, "The referral id does not begin with the uid prefix."},
	{"identity.user.passwords_doesnt_match", 422, "The password and its confirmation differ."},
	{"identity.user.referral_doesnt_exist", 422, "No user has that referral id."},
	{"identity.user.utilized_token", 422, "The token was used already, or a newer one was issued."},
	{"invalid", 422, "A parameter has the wrong type."},
	{"invalid_expire", 422, "The expire time is not between 1 and 30."},
	{"invalid_limit", 422, "The limit is not between 1 and 100."},
	{"invalid_range", 422, "The range is neither day nor hour."},
	{"jwt.decode_and_verify", 401, "The bearer token is missing, malformed, expired or not signed by this service."},
	{"non_integer_limit", 422, "The limit is not an integer."},
	{"non_integer_page", 422, "The page is not an integer."},
	{"non_positive_page", 422, "The page is not above zero."},
	{"record.not_found", 404, "No such record belongs to the caller."},
	{"request.malformed_body", 400, "The body cannot be read as what its content type says."},
	{"request.rate_limited", 429, "Too many attempts; Retry-After says when to come back."},
	{"request.too_large", 413, "The body is larger than the endpoint accepts."},
	{"resource.api_key.2fa_disabled", 400, "API keys need the second factor switched on."},
	{"resource.api_key.invalid_attribute", 422, "API keys cannot be ordered by that attribute."},
	{"resource.api_key.invalid_ordering", 422, "The ordering is neither asc nor desc."},
	{"resource.api_key.invalid_totp", 422, "The second-factor code is wrong."},
	{"resource.api_key.missing_totp", 422, "The second-factor code is missing."},
	{"resource.documents.already_expired", 422, "The document has expired."},
	{"resource.documents.expire_not_a_date", 422, "The expiry is not a date."},
	{"resource.documents.invalid_format", 422, "The expiry date is missing or has no year of four digits."},
	{"resource.documents.limit_reached", 400, "The user has more documents than allowed."},
	{"resource.documents.limit_will_be_reached", 400, "The upload would pass the number of documents allowed."},
	{"resource.labels.limit_reached", 422, "The caller has a hundred public labels; one must go before another is added."},
	{"resource.labels.private", 400, "Private labels cannot be changed by their owner."},
	{"resource.otp.already_enabled", 400, "The second factor is switched on already."},
	{"resource.otp.invalid", 422, "The second-factor code is wrong."},
	{"resource.otp.not_enabled", 400, "The second factor is switched off."},
	{"resource.passkey.invalid", 422, "The flow or the credential is not what was asked for, or was used before."},
	{"resource.passkey.limit", 422, "The caller has twenty passkeys; one must go before another is added."},
	{"resource.passkey.taken", 422, "The passkey was added already, to this account or another."},
	{"resource.password.doesnt_match", 422, "The new password and its confirmation differ."},
	{"resource.password.no_change_provided", 400, "The new password equals the old one."},
	{"resource.password.prev_pass_not_correct", 400, "The old password is wrong."},
	{"resource.phone.doesnt_exist", 404, "The number is not one of the caller's."},
	{"resource.phone.exists", 400, "The caller has this number already, not yet verified."},
	{"resource.phone.invalid_channel", 422, "The channel is neither sms nor call."},
	{"resource.phone.invalid_num", 400, "The text is not a phone number with its country code."},
	{"resource.phone.num_not_reachable", 422, "The provider cannot reach the number."},
	{"resource.phone.num_not_valid", 422, "The provider refuses the number."},
	{"resource.phone.number_exist", 400, "The number is verified already."},
	{"resource.phone.sms_content_invalid", 422, "The provider refuses the message text."},
	{"resource.phone.twilio_unexpected", 422, "The provider failed in an unforeseen way."},
	{"resource.phone.unsubscribed_recipient", 422, "The recipient has unsubscribed at the provider."},
	{"resource.phone.verification_invalid", 404, "The verification code is wrong or has expired."},
	{"resource.profile.doesnt_exist_or_not_editable", 404, "The caller has no drafted profile."},
	{"resource.profile.exist", 409, "A profile exists; an older spelling of state.exists."},
	{"resource.profile.not_exist", 404, "The caller has no profile."},
	{"resource.provider.exists", 422, "Another account of that provider is linked already."},
	{"resource.provider.last_way_in", 422, "Nothing else would be left to sign in with: a password has to be set first."},
	{"resource.provider.taken", 422, "That account of the provider is linked to another account here."},
	{"resource.user.invalid_otp", 422, "The second-factor code is wrong."},
	{"resource.user.invalid_password", 422, "The password is wrong."},
	{"resource.user.no_activity", 422, "There is no activity of that topic."},
	{"resource.user.non_integer_time_from", 422, "The lower time bound is not an integer."},
	{"resource.user.non_integer_time_to", 422, "The upper time bound is not an integer."},
	{"resource.user.wrong_topic", 422, "No such topic of activities exists."},
	{"server.internal_error", 500, "An unforeseen failure; its cause is in the log under the request's id."},
	{"state.exists", 409, "A drafted or submitted profile exists (422 under BARONG_COMPAT=2.4.17)."},
	{"totp.error", 422, "The second-factor code was used already, or cannot be checked now."},
	{"user.ordering.invalid_attribute", 422, "Users cannot be ordered by that attribute."},
	{"user.ordering.invalid_ordering", 422, "The ordering is neither asc nor desc."},
	{"value", 422, "A parameter's value is not among those allowed."},
}
