package openapi

import (
	"net/http"
	"strconv"
	"strings"

	"barong/api/rest"
	"barong/internal/fault"
)

// Swagger is the Swagger 2.0 document that clients of the original read, as JSON. It has the original's title and
// security definition, and the paths below /api/v2.
func Swagger(o Options) ([]byte, error) {
	s := &schemas{legacy: o.Legacy, ref: "#/definitions/", plain: true, out: object{}}
	paths := object{}
	for i := range o.Routes {
		r := &o.Routes[i]
		op := object{
			"operationId": operationID(r), "description": r.Summary, "summary": r.Summary, "tags": []string{tag(r)},
			"produces": []string{strings.Replace(contentType(r), "*/*", "application/octet-stream", 1)},
		}
		var params []object
		for j := range r.Params {
			p := &r.Params[j]
			param := swaggerType(p)
			param["name"], param["in"], param["required"] = p.Name, [...]string{rest.Form: "formData", rest.Query: "query", rest.Path: "path"}[p.In], p.Required || p.In == rest.Path
			if len(p.Values) > 0 {
				param["enum"] = p.Values
			}
			params = append(params, describe(param, p.Doc))
		}
		switch {
		case r.Access == rest.Signed:
			op["parameters"], op["consumes"], op["security"] = []object{message(r, params)}, []string{"application/json"}, []object{}
		case len(params) > 0:
			op["parameters"] = params
			if r.Method != http.MethodGet && r.Method != http.MethodDelete {
				op["consumes"] = []string{"application/x-www-form-urlencoded", "multipart/form-data", "application/json"}
			}
		}
		success, schema, err := s.success(&o, r)
		if err != nil {
			return nil, err
		}
		answer := object{"description": r.Summary}
		if schema != nil && success != http.StatusNoContent && r.Output != "code" {
			answer["schema"] = schema
		}
		responses := object{strconv.Itoa(success): answer}
		for status, codes := range failures(&o, r) {
			text := fault.Join(codes)
			if text == "" {
				text = http.StatusText(status)
			}
			responses[strconv.Itoa(status)] = object{"description": text}
		}
		op["responses"] = responses
		if r.Access.Bearer() {
			op["security"] = []object{{"BearerToken": []string{}}}
		}
		path(paths, r)[strings.ToLower(r.Method)] = op
	}
	return encode(object{
		"swagger":  "2.0",
		"info":     object{"title": "Barong", "description": description, "version": o.Version},
		"basePath": rest.Base, "paths": paths, "definitions": s.out,
		"securityDefinitions": object{
			"BearerToken": object{
				"type": "apiKey", "name": "Authorization", "in": "header", "description": "Bearer Token authentication",
			},
		},
		"security": []object{{"BearerToken": []string{}}},
	})
}

// message is the body of a Signed route, with the parameters that its payload carries as an extension.
func message(r *rest.Route, params []object) object {
	properties := object{}
	var required []string
	for _, p := range params {
		name := p["name"].(string)
		if p["required"] == true {
			required = append(required, name)
		}
		delete(p, "name")
		delete(p, "in")
		delete(p, "required")
		properties[name] = p
	}
	data := object{"type": "object", "properties": properties}
	if required != nil {
		data["required"] = required
	}
	text := object{"type": "string"}
	signature := object{"type": "object", "properties": object{
		"protected": text, "signature": text, "header": object{"type": "object", "properties": object{"kid": text}},
	}}
	return object{
		"name": "message", "in": "body", "required": true,
		"description": "A JSON Web Signature in general JSON form (RFC 7515, section 7.2.1) by the signers of the scope " + r.Scope +
			". Its payload has the claims exp and jti, and the parameters as the claim data.",
		"schema": object{
			"type": "object", "required": []string{"payload", "signatures"},
			"properties": object{"payload": text, "signatures": object{"type": "array", "items": signature}},
			"x-data":     data,
		},
	}
}
