package passbook_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"passbook.example/passbook"
	"passbook.example/passbook/passbookv1"
)

// startPassbook runs a real server with a ledger of its own until the end of the test, and returns its address.
func startPassbook(t *testing.T, arguments ...string) string {
	t.Helper()
	program := os.Getenv("PASSBOOK_TEST_BIN")
	if program == "" {
		t.Skip("PASSBOOK_TEST_BIN is not set")
	}
	process := exec.Command(program, append([]string{"serve", "--ephemeral"}, arguments...)...)
	process.Stderr = os.Stderr
	output, err := process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = process.Process.Signal(os.Interrupt)
		_ = process.Wait()
	})
	line, err := bufio.NewReader(output).ReadBytes('\n')
	if err != nil {
		t.Fatalf("the server ended before it was ready: %v", err)
	}
	var ready struct {
		Address string `json:"address"`
	}
	if err := json.Unmarshal(line, &ready); err != nil {
		t.Fatal(err)
	}
	return ready.Address
}

func TestCredentials(t *testing.T) {
	secrets := os.Getenv("PASSBOOK_TEST_SECRETS")
	if secrets == "" {
		t.Skip("PASSBOOK_TEST_SECRETS is not set")
	}
	address := startPassbook(t, "--config", filepath.Join(secrets, "passbook.toml"))
	read := func(name string) []byte {
		content, err := os.ReadFile(filepath.Join(secrets, name))
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(read("ca.crt"))
	certificate, err := tls.X509KeyPair(read("client.crt"), read("client.key"))
	if err != nil {
		t.Fatal(err)
	}
	anonymous := &tls.Config{RootCAs: authorities, ServerName: "server.test", MinVersion: tls.VersionTLS12}
	identified := anonymous.Clone()
	identified.Certificates = []tls.Certificate{certificate}
	token := func(context.Context) (string, error) { return strings.TrimSpace(string(read("token"))), nil }

	for name, options := range map[string][]passbook.Option{
		"token":              {passbook.WithTLS(anonymous), passbook.WithTokenSource(token)},
		"client certificate": {passbook.WithTLS(identified)},
	} {
		client := connect(t, address, options...)
		account := &passbookv1.CreateAccountRequest{AccountId: "joint", CurrencyCode: "USD"}
		if _, err := client.CreateAccount(t.Context(), account); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		deposit := &passbookv1.DepositRequest{
			AccountId: "joint", Amount: &passbookv1.Money{CurrencyCode: "USD", Value: "1.00"},
		}
		if _, err := client.Deposit(t.Context(), deposit); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	unknown := connect(t, address, passbook.WithTLS(anonymous))
	_, err = unknown.Deposit(t.Context(), &passbookv1.DepositRequest{AccountId: "joint"})
	var failed *passbook.Error
	if !errors.As(err, &failed) || failed.Code != codes.Unauthenticated || failed.Outcome != passbook.NoOutcome {
		t.Errorf("without a credential: %v", err)
	}
}
