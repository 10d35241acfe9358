package main

import (
	"strings"
	"unicode"

	"barong/internal/config"
	"barong/policy"
)

// An object is a piece of a JSON schema.
type object = map[string]any

// schemas are the JSON schemas of the files that operators write, by the name of the file without its ending. Values may be
// templates that read a variable, where the program understands them.
func schemas() map[string]object {
	return map[string]object{
		"barong":         config.Schema(),
		"authz_rules":    rulesSchema(),
		"seeds":          seedsSchema(),
		"providers":      providersSchema(),
		"webhooks":       webhooksSchema(),
		"mailer":         mailerSchema(),
		"management_api": managementSchema(),
	}
}

// document is a schema of a file.
func document(title string, of object) object {
	of["$schema"] = "http://json-schema.org/draft-07/schema#"
	of["$comment"] = `Generated from internal/config/reference/schemas.go by "make docs".`
	of["title"] = title
	return of
}

// mapping is a mapping with these keys and no other, of which some are required.
func mapping(properties object, required ...string) object {
	m := object{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		m["required"] = required
	}
	return m
}

// each is a mapping with any keys, of values of one kind.
func each(of object) object {
	return object{"type": []string{"object", "null"}, "additionalProperties": of}
}

// list is a list, or nothing.
func list(of object) object { return object{"type": []string{"array", "null"}, "items": of} }

// said adds what a value means.
func said(of object, text string) object {
	of["description"] = text
	return of
}

// text is a plain value that matches a pattern, or is a template.
func text(pattern string) object {
	p := object{"type": []string{"string", "number", "boolean"}}
	if pattern != "" {
		p["pattern"] = "^[^<]*<%|" + pattern
	}
	return p
}

// word is one of several words, in any case.
func word(words ...string) object {
	var b strings.Builder
	for _, r := range strings.Join(words, "|") {
		if upper, lower := unicode.ToUpper(r), unicode.ToLower(r); upper != lower {
			b.WriteString("[" + string(upper) + string(lower) + "]")
		} else {
			b.WriteRune(r)
		}
	}
	return text("^(" + b.String() + ")$")
}

func choice(words []string) object { return text("^(" + strings.Join(words, "|") + ")$") }

// absent is a value that may be left empty.
func absent(of object) object { return object{"anyOf": []object{of, {"type": "null"}}} }

func rulesSchema() object {
	entry := object{"type": "string", "pattern": `^(?! )(?!/)(?!.*//)(?!(.*/)?\.\.?(/|$))[^\\;#%?]*[^\\;#%? ]$|<%`}
	lists := mapping(object{
		"pass":  said(list(entry), "Paths that need nobody: these, and what is below them."),
		"block": said(list(entry), "Paths that are refused, whoever asks: all that begin so."),
	})
	lists["type"] = []string{"object", "null"}
	return document("Lists of paths (config/authz_rules.yml)", mapping(object{"rules": lists}, "rules"))
}

func seedsSchema() object {
	methods := append([]string{"ALL"}, policy.Methods()...)
	path := said(text(`[^\s]`), "Beginning of the published path, without a slash before it.")
	whole := object{"anyOf": []object{{"type": "integer", "minimum": 0}, {"type": "string", "pattern": `^[0-9]+$|<%`}}}
	status := object{"anyOf": []object{{"type": "integer", "minimum": 400, "maximum": 599}, {"type": "string", "pattern": `^[45][0-9][0-9]$|<%`}, {"type": "null"}}}
	return document("Seeds (config/seeds.yml)", object{
		"type": []string{"object", "null"}, "additionalProperties": false,
		"properties": object{
			"users": list(mapping(object{
				"email": text(`@`), "password": said(absent(text("")), "Without one, one is made and printed."),
				"password_digest": absent(text("")), "role": absent(text(`\S`)), "state": absent(text(`\S`)), "level": whole,
				"uid": absent(text("")), "data": absent(text("")), "otp": absent(text("^(false)?$")), "referral_id": absent(whole),
			}, "email", "level")),
			"levels": said(list(mapping(object{
				"key": text(`\S`), "value": text(`\S`), "description": absent(text("")),
			}, "key", "value")), "The first is level 1, and so on."),
			"permissions": list(mapping(object{
				"role": text(`\S`), "verb": word(methods...), "path": path, "topic": absent(text("")),
				"action": said(word("ACCEPT", "DROP", "AUDIT"), "accept grants, drop refuses whatever accepts, audit records."),
			}, "role", "verb", "path", "action")),
			"restrictions": list(mapping(object{
				"category": choice(policy.Categories()), "scope": choice(policy.Scopes()), "value": text(`\S`), "state": choice([]string{"enabled", "disabled"}),
				"code": said(status, "Status of the refusal."),
			}, "category", "scope", "value", "state")),
		},
	})
}

// words are a list of texts, or one text with spaces or commas between.
func words() object {
	return object{"anyOf": []object{{"type": "array", "items": text("")}, {"type": []string{"string", "null"}}}}
}

func providersSchema() object {
	one := mapping(object{
		"id":     said(text(`^[a-z0-9][a-z0-9_-]{0,31}$`), "In addresses."),
		"name":   said(absent(text("")), "On the button."),
		"issuer": said(text(`^https?://`), "Letter by letter as the provider's tokens say it."), "client_id": text(`\S`),
		"client_secret": absent(text("")), "client_secret_file": absent(text("")), "scopes": words(),
		"sign_up": said(object{"type": []string{"boolean", "null"}}, "Who has no account gets one."), "domains": words(),
		"trust_email": said(object{"type": []string{"boolean", "null"}}, "Whoever runs the provider can get into every account."),
	}, "id", "issuer", "client_id")
	one["not"] = object{
		"required":   []string{"client_secret", "client_secret_file"},
		"properties": object{"client_secret": object{"pattern": `\S`, "type": "string"}, "client_secret_file": object{"pattern": `\S`, "type": "string"}},
	}
	return document("Providers (config/providers.yml)", object{"type": []string{"array", "object", "null"}, "items": one, "maxItems": 50, "maxProperties": 0})
}

func webhooksSchema() object {
	one := mapping(object{
		"name": text(`^[a-z0-9][a-z0-9_-]{0,39}$`), "url": text(`^https?://`), "secret": said(text(`\S`), "whsec_ and base64 of 24 to 64 bytes; two, separated by a comma, during a change."),
		"secret_file": text(`\S`), "events": said(list(text(`^(\*|(model|system)\.[a-z_.]*\*?)$`)), "Default: all."),
	}, "name", "url")
	one["oneOf"] = []object{{"required": []string{"secret"}}, {"required": []string{"secret_file"}}}
	file := mapping(object{
		"webhooks": object{"type": []string{"array", "null"}, "items": one, "maxItems": 20},
		"networks": said(list(text(`^([Ll]oopback|[Pp]rivate|[Cc]loudflare|[0-9A-Fa-f]*[.:][0-9A-Fa-f:.]*(/[0-9]{1,3})?)$`)), "Where receivers may be that have no public address."),
	})
	file["type"] = []string{"object", "null"}
	return document("Webhooks (config/webhooks.yml)", file)
}

// keychain are public keys by the names of who signs with them.
func keychain() object {
	return each(mapping(object{
		"algorithm": choice([]string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}),
		"value":     said(text(`^[A-Za-z0-9_=\s-]+$`), "URL-safe base64 of the PEM of a public key."),
	}, "algorithm", "value"))
}

func mailerSchema() object {
	expression := object{"anyOf": []object{{"type": []string{"string", "null"}}, {"type": "object", "maxProperties": 1}}}
	file := mapping(object{
		"keychain":  keychain(),
		"exchanges": each(mapping(object{"name": text(`\S`), "signer": text(`\S`)}, "name", "signer")),
		"events": list(mapping(object{
			"name": absent(text("")), "key": text(`\S`), "exchange": text(`\S`), "expression": expression,
			"templates": each(mapping(object{"subject": text(""), "template_path": text(`\S`)}, "template_path")),
		}, "key", "exchange")),
	})
	file["type"] = []string{"object", "null"}
	return document("Mails on events (config/mailer.yml)", file)
}

func managementSchema() object {
	names := object{"anyOf": []object{{"type": "array", "items": text("")}, {"type": []string{"object", "null"}, "maxProperties": 0}}}
	some := object{"type": "array", "items": text(`\S`), "minItems": 1}
	flag, texts := object{"type": []string{"boolean", "null"}}, object{"anyOf": []object{{"type": "array", "items": text("")}, {"type": []string{"string", "null"}}}}
	jwt := mapping(object{
		"verify_expiration": flag, "verify_not_before": flag, "verify_iat": flag, "verify_jti": flag, "verify_iss": flag, "iss": texts,
		"verify_aud": flag, "aud": texts, "verify_sub": flag, "sub": absent(text("")),
		"leeway": said(object{"type": []string{"integer", "null"}, "minimum": 0, "maximum": 3600}, "Seconds."),
	})
	jwt["type"] = []string{"object", "null"}
	file := mapping(object{
		"keychain": keychain(), "jwt": jwt,
		"scopes": each(mapping(object{"permitted_signers": names, "mandatory_signers": some}, "mandatory_signers")),
	})
	file["type"] = []string{"object", "null"}
	return document("Who may sign what (config/management_api.yml)", file)
}
