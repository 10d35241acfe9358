// Package gateways holds the objects in the pages of docs/gateways against what the gateways publish: the schemas of their
// custom resources, Kubernetes' and Istio's own types, and the lists of annotations. There is no cluster in the tests, so that
// this is what stands for one.
package gateways
