// Package listener serves HTTP to strangers. Every listener of the process is one of its own, whether it serves checks, the
// REST API or both: it bounds what anybody may send and how long they may take, keeps places for gateways, takes bodies that
// nobody read off the connection, and loses no request when the process stops. What it refuses before any handler has seen
// it, it answers in JSON with a code of the catalogue.
//
// It knows no check and no route. It depends on fasthttp and the catalogue of codes alone.
package listener
