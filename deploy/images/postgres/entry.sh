#!/bin/sh
# Creates the data files at the first start, then becomes the server. Only what the shell itself can do: there is no other
# program here. Takes POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB; arguments go to the server.
set -eu

user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    : "${POSTGRES_PASSWORD:?must be set at the first start}"
    umask 077
    printf '%s' "$POSTGRES_PASSWORD" > /tmp/password
    initdb -D "$PGDATA" -U "$user" --pwfile=/tmp/password -A scram-sha-256 -E UTF8 \
        --locale-provider=builtin --builtin-locale=C.UTF-8 --locale=C
    : > /tmp/password
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    if [ "$database" != postgres ]; then
        echo "CREATE DATABASE \"$database\"" | postgres --single -D "$PGDATA" postgres
    fi
fi

unset POSTGRES_PASSWORD
exec postgres -D "$PGDATA" -c 'listen_addresses=*' -c log_error_verbosity=terse -c log_min_error_statement=panic "$@"
