// Package tlsconfig returns HTTP transports that trust certificate authorities in addition
// to those of the system. Services inside a cluster have certificates of the cluster's own
// authority.
package tlsconfig

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
)

// Roots returns the certificate authorities of the system and those of a PEM document. It returns
// an error if the document contains no certificate.
func Roots(pem []byte) (*x509.CertPool, error) {
	roots, err := x509.SystemCertPool()
	if err != nil { // an image without certificates, such as scratch
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in PEM form")
	}
	return roots, nil
}

// Transport returns a transport that trusts the system's certificates and those of a PEM
// document. The document may be empty. Transport returns an error if a document that is
// not empty contains no certificate.
func Transport(pem []byte) (*http.Transport, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if len(pem) == 0 {
		return transport, nil
	}
	roots, err := Roots(pem)
	if err != nil {
		return nil, err
	}
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return transport, nil
}
