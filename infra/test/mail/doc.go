// Package mail has the tests of mails with processes: kills, faults of the mail server, and secrets. It
// is apart from package e2e because go test limits the time of each package.
package mail
