//go:build linux

package node

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// certificateLifetime is the validity period of the certificates. A cluster exists for
// an hour or a week.
const certificateLifetime = 365 * 24 * time.Hour

// A pair is a certificate and its key in PEM.
type pair struct{ certificate, key []byte }

// An authority signingKey certificates.
type authority struct {
	pair
	parsed *x509.Certificate
	signer crypto.Signer
}

func newAuthority() (*authority, error) {
	a := &authority{}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "ticketing-auth cluster"},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	var err error
	if a.pair, a.signer, err = certify(template, nil); err != nil {
		return nil, err
	}
	block, _ := pem.Decode(a.certificate)
	a.parsed, err = x509.ParseCertificate(block.Bytes)
	return a, err
}

// server returns the API server's certificate for all its names and addresses.
func (a *authority) server() (pair, error) {
	p, _, err := certify(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"},
		IPAddresses: []net.IP{net.ParseIP("127.0.0.1"), net.ParseIP(Address), net.ParseIP(apiService)},
	}, a)
	return p, err
}

// admin returns an administrator's certificate. The parts of the cluster use it too,
// because they all run as root on the same machine.
func (a *authority) admin() (pair, error) {
	p, _, err := certify(&x509.Certificate{
		Subject:     pkix.Name{Organization: []string{"system:masters"}, CommonName: "admin"},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, a)
	return p, err
}

// certify generates a key and its certificate. The authority signingKey it; without one it is
// self-signed.
func certify(template *x509.Certificate, by *authority) (pair, crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, nil, err
	}
	template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return pair{}, nil, err
	}
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(certificateLifetime)
	parent, signer := template, crypto.Signer(key)
	if by != nil {
		parent, signer = by.parsed, by.signer
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return pair{}, nil, err
	}
	private, err := encodeKey(key)
	return pair{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), private}, key, err
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// writePKI writes all keys and certificates of a cluster. It returns the authority's
// certificate and the administrator's pair.
func writePKI(dir string) (ca []byte, admin pair, err error) {
	a, err := newAuthority()
	if err != nil {
		return nil, pair{}, err
	}
	server, err := a.server()
	if err != nil {
		return nil, pair{}, err
	}
	if admin, err = a.admin(); err != nil {
		return nil, pair{}, err
	}
	accounts, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, pair{}, err
	}
	signingKey, err := encodeKey(accounts) // the key for tokens of service accounts
	if err != nil {
		return nil, pair{}, err
	}
	publicKey, err := x509.MarshalPKIXPublicKey(accounts.Public())
	if err != nil {
		return nil, pair{}, err
	}
	for name, content := range map[string][]byte{
		"ca.crt": a.certificate, "ca.key": a.key,
		"apiserver.crt": server.certificate, "apiserver.key": server.key,
		"admin.crt": admin.certificate, "admin.key": admin.key,
		"accounts.key": signingKey, "accounts.pub": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: publicKey}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return nil, pair{}, err
		}
	}
	return a.certificate, admin, nil
}
