package rest

import (
	"reflect"
	"testing"

	"barong/db"
)

func TestInto(t *testing.T) {
	type part struct {
		Inner string `param:"inner"`
	}
	type input struct {
		Text     string  `param:"text"`
		Optional *string `param:"optional"`
		Count    int64   `param:"count"`
		Number   *int64  `param:"number"`
		Flag     bool    `param:"flag"`
		part
		New db.NewText `param:"new"`
		Any any        `param:"any"`
	}
	word, none, seven, zero := "x", "", int64(7), int64(0)
	for _, c := range []struct {
		name string
		args args
		want input
	}{
		{"nothing", args{}, input{}},
		{"others", args{"Text": {kind: text, text: "x"}, "other": {kind: text, text: "x"}}, input{}},
		{"texts", args{
			"text": {kind: text, text: "x"}, "optional": {kind: text, text: "x"}, "count": {kind: text, text: "7"},
			"number": {kind: text, text: "7"}, "flag": {kind: text, text: "yes"}, "inner": {kind: text, text: "x"}, "new": {kind: text, text: "x"},
			"any": {kind: object, raw: map[string]any{"a": "b"}},
		}, input{"x", &word, 7, &seven, true, part{"x"}, db.NewText{Given: true, Text: &word}, map[string]any{"a": "b"}}},
		{"empty", args{
			"text": {kind: text}, "optional": {kind: text}, "count": {kind: text}, "number": {kind: text}, "flag": {kind: text},
			"inner": {kind: text}, "new": {kind: text}, "any": {kind: text},
		}, input{"", &none, 0, &zero, false, part{}, db.NewText{Given: true, Text: &none}, ""}},
		{"null", args{
			"text": {kind: null}, "optional": {kind: null}, "count": {kind: null}, "number": {kind: null}, "flag": {kind: null},
			"inner": {kind: null}, "new": {kind: null}, "any": {kind: null},
		}, input{New: db.NewText{Given: true}}},
	} {
		var got input
		(&Call{args: c.args}).Into(&got)
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	before := "before"
	for _, c := range []struct {
		sent     db.NewText
		or, word *string
	}{{db.NewText{}, &before, nil}, {db.NewText{Given: true, Text: &word}, &word, &word}, {db.NewText{Given: true}, nil, &none}} {
		if got := c.sent.Or(&before); !reflect.DeepEqual(got, c.or) {
			t.Errorf("%+v or before: %v", c.sent, got)
		}
		if got := c.sent.Sent(); !reflect.DeepEqual(got, c.word) {
			t.Errorf("%+v sent: %v", c.sent, got)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a field of a type that no parameter has is read")
		}
	}()
	(&Call{}).Into(&struct {
		F float64 `param:"f"`
	}{})
}
