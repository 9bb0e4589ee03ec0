// Package bench measures the system against its floors: what the same answer
// would cost with nothing of ours around it.
//
//	go test -run=^$ -bench=. ./infra/test/bench
//
// Absolute figures are the machine's; compare the lines of one run.
package bench
