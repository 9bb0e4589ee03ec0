// Package bench compares the system with baselines: handlers that give the same response with
// the standard library and the database driver alone.
//
//	go test -run=^$ -bench=. ./infra/test/bench
//
// The figures depend on the machine. Compare only lines of one run.
package bench
