package account

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"barong/db"
)

// A Letter is the payload of an outbox row of the kind "mail": what to render and whom to send it to.
type Letter struct {
	Kind     string            `json:"kind"`     // routing key of the event that causes it: "session.create"
	Language string            `json:"language"` // wanted; the renderer falls back when it has no such template
	To       string            `json:"to"`
	Data     map[string]string `json:"data"`
}

// mail queues a letter to the user, in the transaction that causes it.
func (u *Unit) mail(ctx context.Context, user *db.User, kind string, data map[string]string) error {
	data["email"] = user.Email
	payload, err := json.Marshal(Letter{Kind: kind, Language: u.s.mailLanguage(user), To: user.Email, Data: data})
	if err != nil { // strings only: cannot fail
		panic("account: encode letter: " + err.Error())
	}
	if err := u.Enqueue(ctx, "mail", kind, payload); err != nil {
		return fmt.Errorf("queue mail %s: %w", kind, err)
	}
	return nil
}

// mailLanguage is the member language of the user's data, or the default. Data may be any JSON, or have been imported.
func (s *Service) mailLanguage(user *db.User) string {
	var data struct {
		Language string `json:"language"`
	}
	if user.Data != nil && json.Unmarshal([]byte(*user.Data), &data) == nil && data.Language != "" {
		return storable(data.Language, 32)
	}
	return s.DefaultLanguage
}

// mailedLabels are the labels whose decisions users are told by mail. The others (email, otp, …) are the user's own
// doing, or the business of staff.
var mailedLabels = []string{"phone", "profile", "document", "id_document", "second_document", "institutional"}

// mailLabel tells the user by mail of a decision about them: a private label that became verified or rejected. Public
// labels never cause mail, or users could have this service write to them without end.
func (u *Unit) mailLabel(ctx context.Context, user *db.User, l *db.Label, kind string) error {
	decided := l.Value == "verified" || l.Value == "rejected"
	if l.Scope != Private || !decided || !slices.Contains(mailedLabels, l.Key) {
		return nil
	}
	return u.mail(ctx, user, kind, map[string]string{
		"key": l.Key, "value": l.Value, "level": strconv.Itoa(user.Level), "state": user.State,
	})
}
