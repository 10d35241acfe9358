package resource

import (
	"context"

	"barong/api/account"
	"barong/api/rest"
	"barong/api/view"
	"barong/authz"
	"barong/internal/fault"
	"barong/internal/openid"
)

func (m *Module) providerRoutes() []rest.Route {
	id := rest.Param{Name: "id", In: rest.Path, Required: true, Doc: "Id of the provider."}
	return []rest.Route{
		{
			Method: "GET", Path: "/resource/providers", Summary: "Lists the providers that the caller may sign in with, in the order in which they were linked.",
			Access: rest.User, Prefix: providers, Success: 200, Output: "[Provider]", Added: true, Handle: m.listProviders,
		},
		{
			Method: "POST", Path: "/resource/providers/{id}/start",
			Summary: "Begins to link a provider: where the browser is to go, which comes back to rd, or to the portal with the code as error.",
			Access:  rest.User, Prefix: providers, Params: []rest.Param{
				id, {Name: "rd", Doc: "Where the browser goes then: an address of this host, or of another that is allowed."},
			},
			Success: 201, Output: "{location:string}", Added: true, Handle: m.startProvider,
			Errors: []fault.Code{fault.NotFound, "identity.provider.unavailable"},
		},
		{
			Method: "DELETE", Path: "/resource/providers/{id}", Summary: "Unlinks a provider.",
			Access: rest.User, Prefix: providers, Params: []rest.Param{id}, Success: 204, Added: true, Handle: m.unlinkProvider,
			Errors: []fault.Code{fault.NotFound, "resource.provider.last_way_in"},
		},
	}
}

// listProviders answers GET /resource/providers.
func (m *Module) listProviders(ctx context.Context, c *rest.Call) error {
	rows, err := m.DB.Identities(ctx, c.User.ID)
	if err != nil {
		return err
	}
	out := make([]view.Provider, len(rows))
	for i := range rows {
		row := &rows[i]
		out[i] = view.NewProvider(row, m.Accounts.ProviderID(row.Issuer, row.Provider), m.Accounts.ProviderName(row.Issuer, row.Provider))
	}
	return c.Answer(out)
}

// startProvider answers POST /resource/providers/{id}/start. A script calls it, so that the browser is told where to go, and
// not sent there.
func (m *Module) startProvider(ctx context.Context, c *rest.Call) error {
	var in struct {
		ID     string `param:"id"`
		Return string `param:"rd"`
	}
	c.Into(&in)
	flow := openid.Flow{Return: in.Return, UID: c.User.UID, Epoch: c.User.Epoch()}
	if current := m.current(ctx, c); current != nil {
		flow.Session = current.Key.String()
	}
	location, sealed, err := m.Accounts.BeginProvider(ctx, in.ID, c.HTTPS, c.AskedHost, flow)
	if err != nil {
		return err
	}
	c.SetCookie(m.Cookies.Beside(authz.ProviderCookie, c.HTTPS).Set(sealed, openid.FlowLife))
	c.SetHeader("Location", location)
	return c.Answer(struct {
		Location string `json:"location"`
	}{location})
}

// unlinkProvider answers DELETE /resource/providers/{id}.
func (m *Module) unlinkProvider(ctx context.Context, c *rest.Call) error {
	var in struct {
		ID string `param:"id"`
	}
	c.Into(&in)
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		return u.Unlink(ctx, c.User, m.client(c), in.ID)
	})
	if err != nil {
		return notFound(err)
	}
	return c.Done()
}
