// Package life has the tests of the life of an account across functions.
package life
