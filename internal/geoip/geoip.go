// Package geoip finds the country and continent of an address, for the restrictions by place and for the sessions and
// activities that show where they came from. Its source is a MaxMind database that the operator supplies, or data that
// comes with the program and knows countries alone, their names in English.
//
// The data that comes with the program: this site or product includes IP2Location LITE data available from
// https://lite.ip2location.com (CC BY-SA 4.0), by way of github.com/phuslu/iploc.
package geoip

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"

	"barong/policy"

	"github.com/oschwald/maxminddb-golang/v2"
	"github.com/phuslu/iploc"
)

// Attribution is what the licence of the embedded data asks to be shown.
const Attribution = "This site or product includes IP2Location LITE data available from https://lite.ip2location.com."

// Languages are the languages in which a MaxMind database names places.
var Languages = []string{"de", "en", "es", "fr", "ja", "pt-BR", "ru", "zh-CN"}

// cachedPlaces bounds the decoded records that are kept. A country database has a few hundred; a city database has as
// many as there are cities, and what does not fit is decoded each time.
const cachedPlaces = 1 << 16

// A Locator finds places. It is safe for concurrent use.
type Locator struct {
	known map[string]*policy.Place // of the embedded data, by country

	db   *maxminddb.Reader // nil for the embedded data
	lang string

	mu   sync.RWMutex
	kept map[uintptr]*policy.Place // of db, by the offset of the record; nil for a record without a place
}

// Embedded finds countries by the data that comes with the program. What it knows of IPv6 takes 11 MB and is unpacked when
// the first such address is looked for, who waits a tenth of a second for it.
func Embedded() *Locator {
	l := &Locator{known: make(map[string]*policy.Place, len(nations))}
	for code, n := range nations {
		l.known[code] = &policy.Place{
			Country: code, CountryName: n.name, Continent: n.continent, ContinentName: continentNames[n.continent],
		}
	}
	return l
}

// Open reads a MaxMind database (MaxMind DB file format 2.0) of countries or cities into memory and checks all of it.
// lang is the language of the local names: "en", "de", ….
func Open(path, lang string) (*Locator, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("place database: %w", err)
	}
	db, err := maxminddb.OpenBytes(data)
	if err != nil {
		return nil, fmt.Errorf("place database %s: %w", path, err)
	}
	if err := db.Verify(); err != nil {
		return nil, fmt.Errorf("place database %s: %w", path, err)
	}
	l := &Locator{db: db, lang: lang, kept: make(map[uintptr]*policy.Place)}
	named := false
	for network := range db.Networks() {
		// One record tells whether this is a database of places at all: one of networks or domains would load and then
		// silently find nothing.
		place, err := l.decode(network)
		if err != nil {
			return nil, fmt.Errorf("place database %s: %w", path, err)
		}
		if named = place != nil; named {
			break
		}
	}
	if !named {
		return nil, fmt.Errorf("place database %s: %w", path, errors.New("it has no countries"))
	}
	return l, nil
}

// record is the part of a MaxMind record that matters. Some free databases have the country's code at the top.
type record struct {
	Continent struct {
		Code  string            `maxminddb:"code"`
		Names map[string]string `maxminddb:"names"`
	} `maxminddb:"continent"`
	Country struct {
		Code  string            `maxminddb:"iso_code"`
		Names map[string]string `maxminddb:"names"`
	} `maxminddb:"country"`
	CountryCode string `maxminddb:"country_code"`
}

// decode makes a Place of a record, or nil when it names none. What a record does not say of a country, its continent
// and English names, the program's own table does.
func (l *Locator) decode(found maxminddb.Result) (*policy.Place, error) {
	var r record
	if err := found.Decode(&r); err != nil {
		return nil, err
	}
	p := policy.Place{
		Country: r.Country.Code, CountryName: r.Country.Names["en"], CountryLocal: r.Country.Names[l.lang],
		Continent: r.Continent.Code, ContinentName: r.Continent.Names["en"], ContinentLocal: r.Continent.Names[l.lang],
	}
	if p.Country == "" {
		p.Country = r.CountryCode
	}
	n := nations[p.Country]
	if p.CountryName == "" {
		p.CountryName = n.name
	}
	if p.Continent == "" {
		p.Continent = n.continent
	}
	if p.ContinentName == "" {
		p.ContinentName = continentNames[p.Continent]
	}
	if p == (policy.Place{}) {
		return nil, nil
	}
	return &p, nil
}

func (l *Locator) find(addr netip.Addr) *policy.Place {
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() {
		return nil
	}
	if l.db == nil {
		return l.known[iploc.IPCountry(addr)]
	}
	found := l.db.Lookup(addr)
	if !found.Found() {
		return nil
	}
	l.mu.RLock()
	place, ok := l.kept[found.Offset()]
	l.mu.RUnlock()
	if ok {
		return place
	}
	place, err := l.decode(found)
	if err != nil {
		return nil // Open has read every record, so this is one that reads and has fields of other types
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.kept) < cachedPlaces {
		l.kept[found.Offset()] = place
	}
	return place
}

// Place finds the place of an address, IPv4-mapped or not. ok is false when it has none, as a private one.
func (l *Locator) Place(addr netip.Addr) (place policy.Place, ok bool) {
	if p := l.find(addr); p != nil {
		return *p, true
	}
	return policy.Place{}, false
}

// Country is the ISO 3166-1 alpha-2 code of an address's country, or empty.
func (l *Locator) Country(addr netip.Addr) string {
	if p := l.find(addr); p != nil {
		return p.Country
	}
	return ""
}
