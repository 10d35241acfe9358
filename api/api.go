// Package api is the REST API as a whole: the routes of its modules behind one server, the documents that describe
// them, and the few addresses beside /api/v2 that belong to it. Each module stands in a package of its own (identity,
// resource, admin, management), on the frame of package rest and the rules of package account.
package api

import (
	"bytes"
	"context"
	"errors"
	"mime"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/valyala/fasthttp"

	"barong/api/admin"
	"barong/api/identity"
	"barong/api/management"
	"barong/api/openapi"
	"barong/api/resource"
	"barong/api/rest"
	"barong/db"
	"barong/internal/blob"
	"barong/internal/fault"
	"barong/internal/pages"
	"barong/policy"
)

// Options are what New needs.
type Options struct {
	Rest       rest.Options // without Routes and Open
	Identity   identity.Options
	Resource   resource.Options
	Admin      admin.Options
	Management management.Options
	Files      *blob.Store
	Version    string // of the program, for the documents
}

// An API answers whatever is no check. It is safe for concurrent use.
type API struct {
	server *rest.Server
	keys   func() identity.Document
	page   fasthttp.RequestHandler
	routes []rest.Route
}

// jwksPath is an address beside /api/v2 (RFC 8615).
const jwksPath = "/.well-known/jwks.json"

// New assembles the API.
func New(o Options) (*API, error) {
	people := identity.New(o.Identity)
	staff := admin.New(o.Admin).Routes()
	o.Resource.Abilities = func(role string) []string { return abilities(staff, o.Rest.Policy(), o.Rest.Prefix, role) }
	routes := slices.Concat(people.Routes(), resource.New(o.Resource).Routes(), staff, fileRoutes(o.Resource.DB, o.Files))
	described := openapi.Options{Routes: routes, Version: o.Version, Prefix: o.Rest.Prefix, Legacy: o.Rest.Legacy}
	// Made when they are first asked for: a start does not wait for what few ever read.
	document := sync.OnceValues(func() ([]byte, error) { return openapi.Document(described) })
	swagger := sync.OnceValues(func() ([]byte, error) { return openapi.Swagger(described) })
	services := management.New(o.Management)
	signed := openapi.Options{Routes: services.Routes(), Version: o.Version, Prefix: o.Rest.Prefix, Legacy: o.Rest.Legacy}
	inside := sync.OnceValues(func() ([]byte, error) { return openapi.Swagger(signed) })
	o.Rest.Open = services.Open
	o.Rest.Routes = slices.Concat(routes, signed.Routes, []rest.Route{
		documentRoute("/openapi.json", "OpenAPI 3.1", document), documentRoute("/restful_api.json", "Swagger 2.0", swagger),
		documentRoute("/management/management.json", "Swagger 2.0, the part for other services", inside),
	})
	return &API{
		server: rest.New(o.Rest), keys: people.JWKSDocument, routes: routes,
		page: pages.Docs(rest.Base + "/openapi.json"),
	}, nil
}

// parameter is a parameter in the path of a route.
var parameter = regexp.MustCompile(`\{[^}]+\}`)

// abilities are the routes that the rules let a role call. Of one whose path has parameters, any value stands for all.
func abilities(routes []rest.Route, rules *policy.Snapshot, prefix, role string) []string {
	calls := []string{}
	for i := range routes {
		r := &routes[i]
		if rules.Permit(role, r.Method, prefix+parameter.ReplaceAllString(r.Path, "x")).Allow {
			calls = append(calls, r.Method+" "+r.Path)
		}
	}
	return calls
}

// Routes are the routes that the documents describe.
func (a *API) Routes() []rest.Route { return a.routes }

// Handle answers a request.
func (a *API) Handle(rc *fasthttp.RequestCtx) {
	target, _, _ := bytes.Cut(rc.Request.Header.RequestURI(), []byte("?"))
	switch path := string(target); {
	case path == jwksPath && (rc.IsGet() || rc.IsHead()):
		d := a.keys()
		rc.Response.Header.Set(fasthttp.HeaderCacheControl, d.CacheControl)
		rc.Response.Header.SetContentType(d.ContentType)
		rc.SetBody(d.Body)
	case (path == pages.DocsPath || strings.HasPrefix(path, pages.DocsPath+"/")) && (rc.IsGet() || rc.IsHead()):
		a.page(rc)
	default:
		a.server.Handle(rc)
	}
}

// documentRoute serves one of the documents about the API.
func documentRoute(path, kind string, document func() ([]byte, error)) rest.Route {
	return rest.Route{
		Method: "GET", Path: path, Summary: "Describes the API as " + kind + ".", Access: rest.Public, Success: 200,
		Output: "any", Added: true,
		Handle: func(_ context.Context, c *rest.Call) error {
			text, err := document()
			if err != nil {
				return err
			}
			c.Bytes("application/json", text)
			return nil
		},
	}
}

// fileRoutes hand out the files of documents that this process keeps itself, to whoever has a signed address.
func fileRoutes(d *db.DB, files *blob.Store) []rest.Route {
	if !files.Local() {
		return nil
	}
	route := func(folder, summary string) rest.Route {
		return rest.Route{
			Method: "GET", Path: "/files/" + folder + "{document}/{name}", Summary: summary,
			Access: rest.Public, Prefix: "files", Params: []rest.Param{
				{Name: "document", In: rest.Path, Required: true, Doc: "Id of the document."},
				{Name: "name", In: rest.Path, Required: true, Doc: "Name of the file in the store."},
				{Name: "expires", In: rest.Query, Doc: "Until when the address is good, in seconds since 1970."},
				{Name: "signature", In: rest.Query, Doc: "Signature of the address."},
			},
			Success: 200, Output: "file", Added: true, Errors: []fault.Code{fault.NotFound},
			Handle: func(ctx context.Context, c *rest.Call) error {
				var in struct {
					Document  string `param:"document"`
					Name      string `param:"name"`
					Expires   string `param:"expires"`
					Signature string `param:"signature"`
				}
				c.Into(&in)
				key := folder + in.Document + "/" + in.Name
				if !files.Verify(key, in.Expires, in.Signature) {
					return fault.New(fault.NotFound)
				}
				return sendFile(ctx, c, d, files, key)
			},
		}
	}
	return []rest.Route{
		route("", "Hands out the file of a document by its signed address."),
		route(blob.ImportedFolder, "Hands out the file of a document that was imported, by its signed address."),
	}
}

func sendFile(ctx context.Context, c *rest.Call, d *db.DB, files *blob.Store, key string) error {
	err := c.Stream(ctx, key, func() (rest.Stream, error) {
		file, content, err := files.Open(context.WithoutCancel(ctx), key) // it is read when this call has ended
		if errors.Is(err, blob.ErrNotFound) {
			return rest.Stream{}, fault.New(fault.NotFound).Because(err)
		}
		return rest.Stream{ContentType: file.ContentType, Size: file.Size, Body: content}, err
	})
	if err != nil {
		return err
	}
	// Nothing in a file may run in the API's origin, whatever a browser makes of its type.
	c.SetHeader("X-Content-Type-Options", "nosniff")
	c.SetHeader("Content-Security-Policy", "default-src 'none'; sandbox")
	c.SetHeader("Cache-Control", "private, no-store")
	disposition := "attachment"
	if row, err := d.DocumentByUpload(ctx, key); err == nil && row.UploadName != nil {
		disposition = mime.FormatMediaType("attachment", map[string]string{"filename": *row.UploadName})
	}
	c.SetHeader("Content-Disposition", disposition)
	return nil
}
