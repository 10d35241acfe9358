package resource_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"barong/api/account"
	"barong/db"
	"barong/internal/test/apitest"
)

func TestLabels(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b, old := start(t, e), start(t, e, legacy)
		u, other := b.member(t), b.member(t)
		as := apitest.As(u)
		post := func(key, value string) *apitest.Answer {
			return b.Post(t, "/resource/labels", as, apitest.Form("key", key, "value", value))
		}
		a := post("  Fruit ", " APPLE ").Want(t, 201)
		if want := []string{"key", "value", "scope", "created_at", "updated_at"}; !slices.Equal(a.Keys(t), want) {
			t.Errorf("members %q", a.Keys(t))
		}
		if got := a.Object(t); got["key"] != "fruit" || got["value"] != "apple" || got["scope"] != "public" {
			t.Errorf("label %v", got)
		}
		b.wantEvents(t, "model.label.created")
		b.wantMails(t)
		post("fruit", "pear").Want(t, 422, "key.taken")
		post("FRUIT", "x").Want(t, 422, "key.taken", "value.too_short")
		post("ab", strings.Repeat("x", 256)).Want(t, 422, "key.too_short", "value.too_long")
		post(strings.Repeat("x", 256), "ab").Want(t, 422, "key.too_long", "value.too_short")
		post("a b c", "ä--").Want(t, 422, "key.invalid", "value.invalid")
		b.Post(t, "/resource/labels", as).Want(
			t, 400, "resource.label.missing_key", "resource.label.empty_key", "resource.label.missing_value", "resource.label.empty_value")
		old.Post(t, "/resource/labels", as).Want(
			t, 422, "resource.label.missing_key", "resource.label.empty_key", "resource.label.missing_value", "resource.label.empty_value")
		b.Post(t, "/resource/labels", as, apitest.JSON(map[string]any{"key": []string{"x"}, "value": 5})).Want(t, 422, "invalid")
		b.wantEvents(t)

		// The program's own keys are not for users, but were in the last release.
		for _, key := range []string{"email", " Phone", "profile", "document", "otp", "delete", "personal"} {
			post(key, "verified").Want(t, 422, "key.exclusion")
		}
		post("email", "x").Want(t, 422, "key.exclusion", "value.too_short")
		old.Post(t, "/resource/labels", as, apitest.Form("key", "document", "value", "verified")).Want(t, 201)
		post("ban", "yes").Want(t, 201)
		b.label(t, u, "note", "any", account.Private) // recomputes level and state
		b.wantUser(t, u, 1, "active", false)
		b.Delete(t, "/resource/labels/document", as).WantBody(t, 204, "")
		b.Delete(t, "/resource/labels/ban", as).WantBody(t, 204, "")
		e.Events()

		post("note", "open").Want(t, 201)
		if got := b.Get(t, "/resource/labels", as).Want(t, 200).List(t); len(got) != 4 {
			t.Errorf("labels %v", got)
		}
		if got := b.Get(t, "/resource/labels/NOTE", as).Want(t, 200).Object(t); got["value"] != "open" || got["scope"] != "public" {
			t.Errorf("the public label goes first: %v", got)
		}
		if got := b.Get(t, "/resource/labels/email", as).Want(t, 200).Object(t); got["scope"] != "private" {
			t.Errorf("email %v", got)
		}
		b.Get(t, "/resource/labels/nothing", as).Want(t, 404, "record.not_found")
		b.Get(t, "/resource/labels/%20", as).Want(t, 400, "resource.label.empty_key")
		old.Get(t, "/resource/labels/%20", as).Want(t, 422, "resource.label.empty_key")
		b.Get(t, "/resource/labels/fruit", apitest.As(other)).Want(t, 404, "record.not_found")

		patch := func(key string, o apitest.Option) *apitest.Answer { return b.Patch(t, "/resource/labels/"+key, as, o) }
		e.Events()
		if got := patch("fruit", apitest.Form("value", " Pear", "key", "taste")).Want(t, 200).Object(t); got["key"] != "fruit" || got["value"] != "pear" {
			t.Errorf("patched %v", got)
		}
		b.wantEvents(t, "model.label.updated")
		patch("fruit", apitest.Form("value", "pear")).Want(t, 200)
		b.wantEvents(t)
		patch("fruit", apitest.Form("value", "a b")).Want(t, 422, "value.invalid")
		patch("fruit", apitest.Form("value", "xy")).Want(t, 422, "value.too_short")
		patch("fruit", apitest.Form("value", strings.Repeat("x", 256))).Want(t, 422, "value.too_long")
		patch("fruit", apitest.Form()).Want(t, 400, "resource.label.missing_value", "resource.label.empty_value")
		patch("fruit", apitest.JSON(map[string]any{"value": []string{"x"}})).Want(t, 422, "invalid")
		patch("%20", apitest.Form("value", "pear")).Want(t, 400, "resource.label.empty_key")
		patch("nothing", apitest.Form("value", "pear")).Want(t, 404, "record.not_found")
		patch("email", apitest.Form("value", "rejected")).Want(t, 400, "resource.labels.private")
		b.Patch(t, "/resource/labels/fruit", apitest.As(other), apitest.Form("value", "pear")).Want(t, 404, "record.not_found")

		b.Delete(t, "/resource/labels/nothing", as).Want(t, 404, "record.not_found")
		b.Delete(t, "/resource/labels/%20", as).Want(t, 400, "resource.label.empty_key")
		b.Delete(t, "/resource/labels/email", as).Want(t, 400, "resource.labels.private")
		b.Delete(t, "/resource/labels/fruit", apitest.As(other)).Want(t, 404, "record.not_found")
		b.Delete(t, "/resource/labels/fruit", as, apitest.JSON(map[string]any{"x": 1})).WantBody(t, 204, "")
		b.Delete(t, "/resource/labels/fruit", as).Want(t, 404, "record.not_found")
		b.Delete(t, "/resource/labels/note", as).WantBody(t, 204, "")
		b.Delete(t, "/resource/labels/note", as).Want(t, 400, "resource.labels.private")
		b.wantLabels(t, u, "private email:verified", "private note:any")
		b.wantEvents(t)
		b.wantActivities(t, u)

		// A label keeps the description that staff gave it.
		why := "because"
		b.update(t, func(un *account.Unit) error {
			_, err := un.CreateLabel(t.Context(), u, "tier", "gold", account.Public, &why)
			return err
		})
		patch("tier", apitest.Form("value", "lead")).Want(t, 200)
		if l, err := e.DB.Label(t.Context(), u.ID, "tier", account.Public); err != nil || l.Description == nil || *l.Description != why {
			t.Errorf("label %+v, %v", l, err)
		}

		token := e.Token(t, other)
		wantCount(t, atOnce(4, func(int) int {
			return b.call(t, "POST", "/resource/labels", form, token, []byte("key=colour&value=green"))
		}), map[int]int{201: 1, 422: 3})
	})
}

// TestTransport holds how a module's parameters may be sent.
func TestTransport(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	b := start(t, e)
	as := apitest.As(e.NewUser(t, nil))
	for _, kind := range []string{"application/xml", "text/plain"} {
		b.Post(t, "/resource/labels", as, apitest.Body(kind, "key=abc")).
			WantBody(t, 415, `{"error":"The provided content-type '`+kind+`' is not supported."}`)
	}
	b.Post(t, "/resource/labels", as, apitest.Body("application/json; charset=utf-8", `{"key":"taste","value":"sour"}`)).Want(t, 201)
	b.Post(t, "/resource/labels", as, apitest.Query("key", "other"), apitest.Form("key", "shape", "value", "round")).Want(t, 201)
	b.Post(t, "/resource/labels", as, apitest.Query("key", "colour", "value", "green")).Want(t, 201)
	b.Get(t, "/resource/labels/other", as).Want(t, 404, "record.not_found")
	b.Get(t, "/resource/labels/shape.json", as).Want(t, 200)
	b.Get(t, "/resource/labels/", as, apitest.Header("Accept", "text/html")).Want(t, 200)
	b.Do(t, "PUT", "/resource/labels", as).WantBody(t, 404, `{"error":"Route is not found"}`)
	b.Do(t, "OPTIONS", "/resource/labels").Want(t, 401, "jwt.decode_and_verify")
	if a := b.Do(t, "OPTIONS", "/resource/labels", as); a.Status != 204 || a.Header.Get("Allow") != "OPTIONS, GET, POST, HEAD" {
		t.Errorf("OPTIONS: %d %q", a.Status, a.Header.Get("Allow"))
	}
	b.Post(t, "/resource/labels", as, apitest.Form("key", strings.Repeat("x", 300<<10))).Want(t, 413, "request.too_large")
	b.Post(t, "/resource/labels", as, apitest.Form("key", "a\x00b", "value", "abc")).Want(t, 400, "request.malformed_body")
}

// TestHundredLabels holds that users cannot give themselves labels without end.
func TestHundredLabels(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b := start(t, e)
		u, other := b.member(t), b.member(t)
		post := func(who *db.User, key string) *apitest.Answer {
			return b.Post(t, "/resource/labels", apitest.As(who), apitest.Form("key", key, "value", "value"))
		}
		e.Update(t, func(ctx context.Context, tx *db.Tx) error {
			for i := range 99 {
				if err := tx.InsertLabel(ctx, &db.Label{UserID: u.ID, Key: fmt.Sprint("key-", i), Value: "value", Scope: account.Public}); err != nil {
					return err
				}
			}
			return nil
		})
		b.label(t, u, "staff", "value", account.Private) // counts for nothing
		post(u, "hundredth").Want(t, 201)
		e.Events()
		post(u, "another").Want(t, 422, "resource.labels.limit_reached")
		post(u, "hundredth").Want(t, 422, "key.taken")
		b.wantEvents(t)
		post(other, "another").Want(t, 201)
		b.Patch(t, "/resource/labels/hundredth", apitest.As(u), apitest.Form("value", "changed")).Want(t, 200)
		b.label(t, u, "more", "value", account.Private)
		b.Delete(t, "/resource/labels/key-7", apitest.As(u)).WantBody(t, 204, "")
		post(u, "another").Want(t, 201)
	})
}
