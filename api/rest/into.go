package rest

import (
	"fmt"
	"reflect"

	"barong/db"
)

// Into reads the parameters of a call into a struct: each into the field with its name as the tag `param`, also those of
// embedded structs. What a field gets depends on its type:
//
//	string      the text, empty when it is absent or null
//	*string     the text, nil when it is absent or null
//	int64       the number, 0 when it is absent or blank
//	*int64      the number, nil when it is absent or null, 0 when it is blank
//	bool        false when it is absent or blank
//	db.NewText  whether it was sent, and the text or null
//	any         what Value says of it
//
// It panics on a field of another type, which is a mistake of the program that any call shows.
func (c *Call) Into(into any) { c.into(reflect.ValueOf(into).Elem()) }

func (c *Call) into(v reflect.Value) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if field.Anonymous {
			c.into(v.Field(i))
			continue
		}
		name := field.Tag.Get("param")
		switch to := v.Field(i).Addr().Interface().(type) {
		case *string:
			*to = c.String(name)
		case **string:
			*to = c.Optional(name)
		case *int64:
			*to = c.Int(name)
		case **int64:
			*to = c.Number(name)
		case *bool:
			*to = c.Bool(name)
		case *any:
			*to = c.Value(name)
		case *db.NewText:
			*to = db.NewText{Given: c.Has(name), Text: c.Optional(name)}
		default:
			panic(fmt.Sprintf("rest: %s of %s has a type that no parameter has", field.Name, v.Type()))
		}
	}
}

// A Person is what a call says about somebody.
type Person struct {
	FirstName db.NewText `param:"first_name"`
	LastName  db.NewText `param:"last_name"`
	DOB       db.NewText `param:"dob"`
	Address   db.NewText `param:"address"`
	Postcode  db.NewText `param:"postcode"`
	City      db.NewText `param:"city"`
	Country   db.NewText `param:"country"`
	Metadata  db.NewText `param:"metadata"`
}

// Edit is what it says as an edit of a profile.
func (p Person) Edit() db.ProfileEdit { return db.ProfileEdit(p) }
