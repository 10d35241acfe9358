// Package systemtest holds the tests of the whole program as an operator runs it: the real binary, with real stores and
// a real gateway, under what operation brings along. Processes are killed, stores hang or go away, replicas share what
// they have, keys are rotated beside a running server. It has no code but its tests; what they establish for operators
// stands in docs/operations.md.
package systemtest
