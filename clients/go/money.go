package passbook

import (
	"fmt"

	"github.com/shopspring/decimal"

	"passbook.example/passbook/passbookv1"
)

// Money is the amount in the form of the contract, without zeros at the end of its decimals. Nothing is rounded.
func Money(amount decimal.Decimal, currencyCode string) *passbookv1.Money {
	return &passbookv1.Money{CurrencyCode: currencyCode, Value: amount.String()}
}

// Amount is the exact decimal of an amount that the server returned. Of nil it is an error.
func Amount(money *passbookv1.Money) (decimal.Decimal, error) {
	amount, err := decimal.NewFromString(money.GetValue())
	if err != nil {
		return decimal.Decimal{}, fmt.Errorf("passbook: %q is no amount: %w", money.GetValue(), err)
	}
	return amount, nil
}
