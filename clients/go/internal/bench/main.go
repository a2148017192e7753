// The command bench compares the two ways in which a client sends the concurrent calls of one program: in one
// stream, and as unary calls. Both take turns on the same server, on accounts that it opens.
//
//	go run ./internal/bench -address 127.0.0.1:50051 -callers 512 -accounts 1
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"passbook.example/passbook"
	"passbook.example/passbook/passbookv1"
)

func main() {
	address := flag.String("address", "127.0.0.1:50051", "the server")
	callers := flag.Int("callers", 512, "concurrent callers of one client")
	accounts := flag.Int("accounts", 1, "accounts that the deposits go to, at random")
	duration := flag.Duration("duration", 3*time.Second, "time of each round")
	rounds := flag.Int("rounds", 3, "rounds of each mode, in turns")
	flag.Parse()

	ids, err := open(*address, *accounts)
	if err != nil {
		log.Fatal(err)
	}
	modes := []struct {
		name    string
		options []passbook.Option
		rates   []float64
	}{{name: "stream"}, {name: "unary", options: []passbook.Option{passbook.WithUnary()}}}
	for range *rounds {
		for i := range modes {
			rate, err := measure(*address, *callers, *duration, ids, modes[i].options)
			if err != nil {
				log.Fatal(err)
			}
			modes[i].rates = append(modes[i].rates, rate)
			fmt.Printf("%-6s %8.0f deposits/s\n", modes[i].name, rate)
		}
	}
	stream, unary := median(modes[0].rates), median(modes[1].rates)
	fmt.Printf("median: stream %.0f/s, unary %.0f/s, ratio %.2f\n", stream, unary, stream/unary)
}

func median(rates []float64) float64 {
	slices.Sort(rates)
	return rates[len(rates)/2]
}

func open(address string, count int) ([]string, error) {
	client, err := passbook.New([]string{address})
	if err != nil {
		return nil, err
	}
	defer func() { _ = client.Close() }()
	run := uuid.NewString()[:8]
	ids := make([]string, count)
	for i := range ids {
		ids[i] = fmt.Sprintf("bench-%s-%d", run, i)
		request := &passbookv1.CreateAccountRequest{AccountId: ids[i], CurrencyCode: "USD"}
		if _, err := client.CreateAccount(context.Background(), request); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// measure returns the deposits per second of all callers together. The first fifth of the time does not count.
func measure(
	address string, callers int, duration time.Duration, accounts []string, options []passbook.Option,
) (float64, error) {
	client, err := passbook.New([]string{address}, options...)
	if err != nil {
		return 0, err
	}
	defer func() { _ = client.Close() }()
	var deposits atomic.Int64
	var isOver atomic.Bool
	amount := passbook.Money(decimal.New(1, -2), "USD")
	failures := make(chan error, callers)
	var group sync.WaitGroup
	for range callers {
		group.Go(func() {
			for !isOver.Load() {
				_, err := client.Deposit(context.Background(), &passbookv1.DepositRequest{
					AccountId: accounts[rand.N(len(accounts))], Amount: amount,
				})
				if err != nil {
					failures <- err
					return
				}
				deposits.Add(1)
			}
		})
	}
	time.Sleep(duration / 5)
	begun, before := time.Now(), deposits.Load()
	time.Sleep(duration - duration/5)
	rate := float64(deposits.Load()-before) / time.Since(begun).Seconds()
	isOver.Store(true)
	group.Wait()
	close(failures)
	return rate, <-failures
}
