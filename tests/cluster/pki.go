package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// certificate is one leaf of the throw-away authority, as the caller asks for it in JSON.
type certificate struct {
	Name          string   `json:"name"`
	CommonName    string   `json:"commonName"`
	Organizations []string `json:"organizations"`
	Hosts         []string `json:"hosts"`
}

const lifetime = 7 * 24 * time.Hour

// writePKI makes an authority, the key pair of the service accounts, and the certificates that standard input lists, in the
// folder that is its only argument. The authority's key is not kept but for the controller manager, which signs with it.
func writePKI(arguments []string) error {
	if len(arguments) != 1 {
		return fmt.Errorf("the one argument is the folder to write to; the certificates come as JSON on standard input")
	}
	folder := arguments[0]
	var wanted []certificate
	decoder := json.NewDecoder(os.Stdin)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&wanted); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	authority := template("cloister-test-cluster", nil)
	authority.IsCA = true
	authority.BasicConstraintsValid = true
	authority.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, authorityKey.Public(), authorityKey)
	if err != nil {
		return err
	}
	if err := writePair(folder, "ca", der, authorityKey); err != nil {
		return err
	}
	accountKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if err := writeKey(folder, "service-accounts", accountKey); err != nil {
		return err
	}
	for _, leaf := range wanted {
		if err := issue(folder, leaf, authority, authorityKey); err != nil {
			return fmt.Errorf("%s: %w", leaf.Name, err)
		}
	}
	return nil
}

func issue(folder string, leaf certificate, authority *x509.Certificate, authorityKey *ecdsa.PrivateKey) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	wanted := template(leaf.CommonName, leaf.Organizations)
	wanted.KeyUsage = x509.KeyUsageDigitalSignature
	wanted.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	for _, host := range leaf.Hosts {
		if address := net.ParseIP(host); address != nil {
			wanted.IPAddresses = append(wanted.IPAddresses, address)
		} else {
			wanted.DNSNames = append(wanted.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, wanted, authority, key.Public(), authorityKey)
	if err != nil {
		return err
	}
	return writePair(folder, leaf.Name, der, key)
}

func template(commonName string, organizations []string) *x509.Certificate {
	// 127 random bits: positive, and never the same twice.
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: commonName, Organization: organizations},
		NotBefore:    now.Add(-time.Minute),
		NotAfter:     now.Add(lifetime),
	}
}

func writePair(folder, name string, der []byte, key *ecdsa.PrivateKey) error {
	if err := write(folder, name+".crt", "CERTIFICATE", der, 0o644); err != nil {
		return err
	}
	return writeKey(folder, name, key)
}

func writeKey(folder, name string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return write(folder, name+".key", "EC PRIVATE KEY", der, 0o600)
}

func write(folder, name, kind string, der []byte, mode os.FileMode) error {
	bytes := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	return os.WriteFile(filepath.Join(folder, name), bytes, mode)
}
