package view

import (
	"encoding/json"

	"barong/db"
)

// A System is how the process that answers is, for operators.
type System struct {
	Version     string    `json:"version"`
	Commit      string    `json:"commit"`
	BuiltAt     string    `json:"built_at"`
	StartedAt   string    `json:"started_at"`
	Environment string    `json:"environment"` // BARONG_ENV
	Compat      string    `json:"compat"`      // BARONG_COMPAT
	Status      string    `json:"status"`      // ready, not ready or stopping
	Parts       []Part    `json:"parts"`
	Policy      PolicyAge `json:"policy"`
	Keys        []SignKey `json:"keys"`
	Settings    []Setting `json:"settings,omitempty"` // for superadmins alone
}

// A Part is one of the parts that a process needs, as /readyz asks them.
type Part struct {
	Name      string `json:"name"`
	Status    string `json:"status"` // ok or failed
	Essential bool   `json:"essential"`
	Reason    string `json:"reason,omitempty"` // for superadmins alone
}

// A PolicyAge says which rules are in force in the process, and since when.
type PolicyAge struct {
	Version  int64    `json:"version"`
	LoadedAt string   `json:"loaded_at"` // when they were last found to be those that are stored
	Age      int64    `json:"age"`       // seconds since then
	OwnModel bool     `json:"own_model"` // a Casbin model of the operator's decides
	Error    string   `json:"error,omitempty"`
	Warnings []string `json:"warnings"`
}

// A SignKey is a key by which tokens are verified. The one that is active signs.
type SignKey struct {
	KID       string `json:"kid"`
	Algorithm string `json:"algorithm"`
	State     string `json:"state"`
}

// A Setting is a setting as it holds, with secrets masked.
type Setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Source string `json:"source"` // default, file, env or flag
}

// An OwnedAPIKey is an API key with its owner.
type OwnedAPIKey struct {
	KID       string   `json:"kid"`
	UID       string   `json:"uid"`
	Email     string   `json:"email"`
	Algorithm string   `json:"algorithm"`
	PublicKey string   `json:"public_key,omitempty"`
	Scope     []string `json:"scope"`
	State     string   `json:"state"`
	CreatedAt string   `json:"created_at"`
	UpdatedAt string   `json:"updated_at"`
}

// OwnedAPIKeys shows keys with their owners, without secrets.
func OwnedAPIKeys(rows []db.OwnedAPIKey) []OwnedAPIKey {
	return each(rows, func(k *db.OwnedAPIKey) OwnedAPIKey {
		key := NewAPIKey(&k.APIKey)
		return OwnedAPIKey{
			KID: key.KID, UID: k.UID, Email: k.Email, Algorithm: key.Algorithm, PublicKey: key.PublicKey, Scope: key.Scope,
			State: key.State, CreatedAt: key.CreatedAt, UpdatedAt: key.UpdatedAt,
		}
	})
}

// A RuleChange says who changed a permission or a restriction, and how it stood before and after.
type RuleChange struct {
	ID        int64           `json:"id"`
	UID       *string         `json:"uid"`     // null for the program itself
	Subject   string          `json:"subject"` // permission or restriction
	SubjectID int64           `json:"subject_id"`
	Action    string          `json:"action"` // create, update or delete
	Before    json.RawMessage `json:"before"`
	After     json.RawMessage `json:"after"`
	CreatedAt string          `json:"created_at"`
}

// RuleChanges shows changes of rules.
func RuleChanges(rows []db.PolicyChange) []RuleChange {
	text := func(s *string) json.RawMessage {
		if s == nil || !json.Valid([]byte(*s)) {
			return json.RawMessage("null")
		}
		return json.RawMessage(*s)
	}
	return each(rows, func(c *db.PolicyChange) RuleChange {
		return RuleChange{
			ID: c.ID, UID: c.UID, Subject: c.Subject, SubjectID: c.SubjectID, Action: c.Action, Before: text(c.Before),
			After: text(c.After), CreatedAt: Sec(c.CreatedAt),
		}
	})
}
