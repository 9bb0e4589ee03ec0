// Package trust makes connections that trust more certificates than the system
// does: a cluster's own authority signs for what is inside it.
package tlsconfig

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
)

// Transport returns a transport that trusts the certificates of a PEM document
// beside the system's; the system's alone where it is empty. It returns an error
// for a document without a certificate.
func Transport(pem []byte) (*http.Transport, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if len(pem) == 0 {
		return transport, nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil { // a scratch image has none
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in PEM form")
	}
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return transport, nil
}
