package importer

import (
	"context"
	"errors"
)

func openMySQL(ctx context.Context, raw, password string) (source, error) {
	return nil, errors.New("to come")
}
