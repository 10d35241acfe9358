// Package observe holds what operators look at to what the program says: the page, the dashboard and the alert rules name
// metrics and labels that a running server exports, and each alert fires on a series that is made up for it.
package observe
