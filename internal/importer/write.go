package importer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"barong/db"
)

// batchSize is how many rows are written at once, batchBytes how many bytes of long texts they hold at most, but for the last.
const (
	batchSize  = 5000
	batchBytes = 4 << 20
)

// activitiesWindow is how far behind the highest id of the last import activities are looked for again: the ids of
// transactions that were open when its source was read.
const activitiesWindow = 100_000

// Import imports the source into a database in one transaction: after an error nothing has changed. The schema must be up
// to date. Rows of an earlier import are replaced where the source has changed them since, and left alone where they were
// changed here. A Source is imported once.
func (s *Source) Import(ctx context.Context, d *db.DB) (*Report, error) {
	err := d.Import(ctx, func(ctx context.Context, im *db.Import) error {
		if err := refuse(ctx, im); err != nil {
			return err
		}
		w := &loader{im: im, report: s.report}
		last, err := im.LastImport(ctx)
		switch {
		case err == nil:
			w.through = last.ActivitiesThrough
			if err := s.continues(ctx, im); err != nil {
				return err
			}
		case !errors.Is(err, db.ErrNotFound):
			return err
		}
		if err := im.Unindex(ctx); err != nil {
			return err
		}
		highest, err := s.walk(ctx, w, false)
		if werr := w.wait(); err == nil {
			err = werr
		}
		if err != nil {
			return err
		}
		s.o.progress(Progress{Step: "finishing"})
		if err := im.SetReferrers(ctx, w.referred, w.referrers); err != nil {
			return err
		}
		run := &db.Run{Version: s.report.SchemaVersion, ActivitiesThrough: max(w.through, highest[activities]), BegunAt: s.report.BegunAt}
		return im.Finish(ctx, run, highest)
	})
	if err != nil {
		return nil, err
	}
	return s.finish(), nil
}

// continues refuses a source that is not the one that was imported before: its users would replace those. A user keeps id and
// uid for good, and a few ids may have been given anew after a restart of MySQL.
func (s *Source) continues(ctx context.Context, im *db.Import) error {
	var before, there, same int
	err := im.EachImportedUser(ctx, func(id int64, uid string) {
		before++
		if i, ok := s.people.find(id); ok {
			there++
			if string(s.people.uid(i)) == uid {
				same++
			}
		}
	})
	if err == nil && before > 0 && same*2 <= there {
		err = fmt.Errorf("this is another database than the one that was imported before: of %d users, %d are in this source: name the right one, or import into a new database",
			before, same)
	}
	return err
}

// A target is a database, or a transaction of it.
type target interface {
	MadeHere(ctx context.Context, table string) (int64, []int64, error)
	LastImport(ctx context.Context) (*db.Run, error)
}

// refuse refuses a database with users that no import made, and before the first import one with rules, which would be
// mixed with those of the source.
func refuse(ctx context.Context, t target) error {
	checked := []string{users}
	if _, err := t.LastImport(ctx); errors.Is(err, db.ErrNotFound) {
		checked = append(checked, levels, permissions, restrictions)
	} else if err != nil {
		return err
	}
	for _, table := range checked {
		n, some, err := t.MadeHere(ctx, table)
		if err != nil {
			return err
		}
		if n > 0 {
			return fmt.Errorf("the database holds %d %s that are not from an import (ids %s): import into a new database, which was neither seeded nor served from yet",
				n, table, list(some, n))
		}
	}
	return nil
}

func list(ids []int64, n int64) string {
	text := ""
	for i, id := range ids {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprint(id)
	}
	if int64(len(ids)) < n {
		text += ", …"
	}
	return text
}

// A loader writes the rows of a source. While one batch is written, the next is read and mapped.
type loader struct {
	im      *db.Import
	report  *Report
	through int64 // highest id of an activity of the imports before

	name     string
	held     []db.Held // by an earlier import, by id
	removed  []int64   // ids of rows of an earlier import that were deleted here since
	occupied map[string]bool
	coming   []int64 // ids that the preview saw
	replaced []int64
	found    map[int64]string // secrets of API keys that an earlier import found, and this one did not, by id
	uid      string           // of the user who came last
	present  map[int64]bool   // activities of the window that are there

	batch   []db.Importable
	bytes   int // of long texts in batch
	totp    []db.Importable
	factors []db.Held // second factors of an earlier import
	off     []int64   // users whose second factor of an earlier import was deleted here

	flight chan error // of the batch that is being written; nil for none

	referred, referrers []int64
}

// find finds what an earlier import wrote of a row.
func find(held []db.Held, id int64) *db.Held {
	i, ok := slices.BinarySearchFunc(held, id, func(h db.Held, id int64) int { return int(h.ID - id) })
	if !ok {
		return nil
	}
	return &held[i]
}

func (w *loader) begin(ctx context.Context, table string) (bool, error) {
	w.name, w.held, w.removed, w.occupied, w.coming, w.replaced, w.found, w.present = table, nil, nil, nil, nil, nil, nil, nil
	var err error
	if table == activities {
		if w.through == 0 {
			return false, nil
		}
		w.present, err = w.im.ActivitiesAfter(ctx, w.through-activitiesWindow)
		return false, err
	}
	if w.held, err = w.im.Held(ctx, table); err != nil {
		return false, err
	}
	if w.removed, err = w.im.RemovedHere(ctx, table); err != nil {
		return false, err
	}
	if w.occupied, err = w.im.Occupied(ctx, table); err != nil {
		return false, err
	}
	if table == users {
		if w.factors, err = w.im.Held(ctx, totpKeys); err != nil {
			return false, err
		}
		if w.off, err = w.im.RemovedHere(ctx, totpKeys); err != nil {
			return false, err
		}
	}
	return len(w.held) > 0, nil
}

// stale reports whether a row is to be written in place of what an earlier import wrote.
func stale(h *db.Held, r db.Importable) bool {
	if k, ok := r.(*db.APIKey); ok { // its secret may have been found since; there are few
		return k.Secret != "" || db.ImportTime(r) > h.At
	}
	return db.ImportTime(r) > h.At || db.ImportMark(r) != h.Mark
}

func (w *loader) preview(r db.Importable) {
	if db.ImportTable(r) != w.name { // a second factor
		return
	}
	id := r.ImportKey()
	w.coming = append(w.coming, id)
	if h := find(w.held, id); h != nil && !h.Edited && stale(h, r) {
		w.replaced = append(w.replaced, id)
		if k, ok := r.(*db.APIKey); ok && k.Secret == "" {
			if w.found == nil {
				w.found = map[int64]string{}
			}
			w.found[id] = k.KID
		}
	}
}

// settle removes what is gone at the source, and what is about to be written anew, so that no new row meets an old one's
// unique keys.
func (w *loader) settle(ctx context.Context) error {
	slices.Sort(w.coming)
	var gone []int64
	for i := range w.held {
		h := &w.held[i]
		if _, ok := slices.BinarySearch(w.coming, h.ID); !ok && (!h.Edited || w.name == users) {
			gone = append(gone, h.ID)
		}
	}
	w.coming = nil
	if w.name == users {
		kept, err := w.im.RemoveUsers(ctx, gone)
		for _, id := range kept {
			w.report.add("gone_at_source", item{"table": users, "id": id})
		}
		w.report.table(users).Removed += int64(len(gone) - len(kept))
		if err != nil {
			return err
		}
		return w.im.FreeAddresses(ctx, w.replaced)
	}
	for id, kid := range w.found {
		var err error
		if w.found[id], err = w.im.HeldSecret(ctx, id, kid); err != nil {
			return err
		}
	}
	w.report.table(w.name).Removed += int64(len(gone))
	return w.im.Remove(ctx, w.name, append(gone, w.replaced...))
}

func (w *loader) put(ctx context.Context, r db.Importable) error {
	switch r := r.(type) {
	case *db.Activity:
		return w.putActivity(ctx, r)
	case *db.TOTPKey:
		return w.putFactor(ctx, r)
	case *db.User:
		w.uid = r.UID
	}
	count, id := w.report.table(w.name), r.ImportKey()
	h := find(w.held, id)
	switch {
	case h == nil:
		if _, ok := slices.BinarySearch(w.removed, id); ok {
			w.report.skip(w.name, "removed_here", item{"table": w.name, "id": id})
			return nil
		}
		for _, key := range w.keysOf(r) {
			if w.occupied[key] {
				w.report.skip(w.name, "made_here", item{"table": w.name, "id": id})
				return nil
			}
		}
	case h.Edited:
		count.Imported++
		if db.ImportTime(r) > h.At {
			w.report.add("changed_here", item{"table": w.name, "id": id})
		}
		return nil
	case !stale(h, r):
		count.Imported++
		if k, ok := r.(*db.APIKey); ok && h.Mark > 0 {
			keyless(w.report, k)
		}
		return nil
	}
	count.Imported++
	count.Written++
	if k, ok := r.(*db.APIKey); ok && k.Secret == "" {
		if k.Secret = w.found[id]; k.Secret == "" || h.Mark > 0 {
			keyless(w.report, k)
		}
	}
	if u, ok := r.(*db.User); ok {
		if u.ReferralID != nil && *u.ReferralID > u.ID { // not there yet
			w.referred, w.referrers = append(w.referred, u.ID), append(w.referrers, *u.ReferralID)
			later := *u
			later.ReferralID = nil
			r = &later
		}
		if h != nil {
			if err := w.wait(); err != nil {
				return err
			}
			if err := w.im.Rewrite(ctx, []db.Importable{r}); err != nil {
				return err
			}
			return w.switchedOff(ctx, u)
		}
	}
	return w.add(ctx, r)
}

// keysOf are the unique keys of a row, if there is anything that it could meet.
func (w *loader) keysOf(r db.Importable) []string {
	if len(w.occupied) == 0 {
		return nil
	}
	return w.im.ImportKeys(r)
}

func (w *loader) putFactor(ctx context.Context, k *db.TOTPKey) error {
	count := w.report.table(totpKeys)
	h := find(w.factors, k.UserID)
	_, off := slices.BinarySearch(w.off, k.UserID)
	if k.Secret == "" {
		if h != nil || off { // found earlier, or taken away here
			return nil
		}
		there := false
		if len(w.held) > 0 { // they may have enrolled here
			if err := w.wait(); err != nil {
				return err
			}
			var err error
			if there, err = w.im.HasTOTPKey(ctx, k.UserID); err != nil {
				return err
			}
		}
		if !there {
			factorless(w.report, w.uid)
		}
		return nil
	}
	count.Imported++
	switch {
	case h == nil && off: // whatever they have here
		return nil
	case h != nil && (h.Edited || h.Mark > 0 && db.ImportTime(k) <= h.At): // enrolled anew, or in use here
		return nil
	case h != nil:
		if err := w.wait(); err != nil {
			return err
		}
		if err := w.im.Remove(ctx, totpKeys, []int64{k.UserID}); err != nil {
			return err
		}
	case len(w.held) > 0: // who enrolled here keeps that
		if err := w.wait(); err != nil {
			return err
		}
		there, err := w.im.HasTOTPKey(ctx, k.UserID)
		if err != nil {
			return err
		}
		if there {
			return nil
		}
	}
	count.Written++
	if w.totp = append(w.totp, k); len(w.totp) < batchSize {
		return nil
	}
	return w.writeFactors(ctx)
}

// switchedOff removes the second factor that an earlier import brought of a user who has none at the source any more.
func (w *loader) switchedOff(ctx context.Context, u *db.User) error {
	h := find(w.factors, u.ID)
	if u.OTP || h == nil || h.Edited {
		return nil
	}
	w.report.table(totpKeys).Removed++
	return w.im.Remove(ctx, totpKeys, []int64{u.ID})
}

// writeFactors writes second factors, behind the users whose they are.
func (w *loader) writeFactors(ctx context.Context) error {
	if err := w.write(ctx); err != nil {
		return err
	}
	factors := w.totp
	w.totp = nil
	if err := w.wait(); err != nil {
		return err
	}
	return w.im.Insert(ctx, factors)
}

func (w *loader) putActivity(ctx context.Context, a *db.Activity) error {
	count := w.report.table(activities)
	switch {
	case w.through > 0 && a.ID <= w.through-activitiesWindow, w.through > 0 && a.ID <= w.through && w.present[a.ID]:
		count.Imported++
		return nil
	case w.present[a.ID]:
		w.report.skip(activities, "made_here", item{"table": activities, "id": a.ID})
		return nil
	}
	count.Imported++
	count.Written++
	return w.add(ctx, a)
}

func (w *loader) add(ctx context.Context, r db.Importable) error {
	w.batch = append(w.batch, r)
	if w.bytes += weight(r); len(w.batch) < batchSize && w.bytes < batchBytes {
		return nil
	}
	return w.write(ctx)
}

// weight is how many bytes the texts of a row take whose length nothing but the types of MySQL's columns bounds.
func weight(r db.Importable) int {
	n := func(texts ...*string) (sum int) {
		for _, s := range texts {
			if s != nil {
				sum += len(*s)
			}
		}
		return sum
	}
	switch r := r.(type) {
	case *db.Activity:
		return n(r.Data, &r.UserAgent)
	case *db.User:
		return n(r.Data)
	case *db.Profile:
		return n(r.Metadata, r.Address)
	case *db.Document:
		return n(r.Metadata)
	case *db.DataStorage:
		return n(&r.Data)
	}
	return 0
}

// write begins to write the batch, once the one before is written.
func (w *loader) write(ctx context.Context) error {
	if err := w.wait(); err != nil {
		return err
	}
	batch, flight := w.batch, make(chan error, 1)
	w.batch, w.bytes, w.flight = nil, 0, flight
	go func() { flight <- w.im.Insert(ctx, batch) }()
	return nil
}

// wait waits for the batch that is being written. Whatever else uses the transaction comes behind it.
func (w *loader) wait() error {
	if w.flight == nil {
		return nil
	}
	err := <-w.flight
	w.flight = nil
	return err
}

func (w *loader) end(ctx context.Context) error {
	if err := w.writeFactors(ctx); err != nil {
		return err
	}
	return w.wait()
}
