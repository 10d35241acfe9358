package openapi

import (
	"net/http"
	"strconv"
	"strings"

	"barong/api/rest"
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
		if len(params) > 0 {
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
			words := make([]string, len(codes))
			for k, c := range codes {
				words[k] = string(c)
			}
			text := strings.Join(words, ", ")
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
