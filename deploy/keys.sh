#!/bin/sh
# Makes the keys and certificates of a service, once, and hands each part its own: svc-keys DIR [NAME,… [SERVER,…]]
# DIR has the folders authority (everything), manager, worker and cli. Run again it does what is missing: it signs
# certificates again that end within 60 days, or whose names (NAME: further ones of the manager) have changed.
# With the names of NATS servers there is a second authority, and a folder nats: a manager gets a certificate for the
# journal in its folder journal, and nobody else has one with which NATS would let it in.
set -eu
umask 077
cd "$1"
mkdir -p authority manager worker cli
local=localhost,127.0.0.1,::1
made=authority

# A folder gets its name when it is complete, so that a start that is killed leaves nothing halfway.
if [ ! -d $made/roles ]; then
  rm -rf $made/draft
  svc auth generate --all $made/draft
  mv $made/draft $made/roles
fi

# authority FOLDER NAMES CLIENTS: a CA, a certificate for the server at NAMES, and one for each of CLIENTS.
authority() {
  if [ ! -d "$made/$1" ]; then
    rm -rf $made/draft
    svc auth ca $made/draft --names "$2" --clients "$3"
    printf '%s\n' "$2" > $made/draft/names
    mv $made/draft "$made/$1"
  fi
  if ! current "$1" "$2"; then
    svc auth ca "$made/$1" --names "$2" --renew
    printf '%s\n' "$2" > "$made/$1/names"
  fi
}
current() {
  [ "$(cat "$made/$1/names")" = "$2" ] || return 1
  for certificate in "$made/$1"/*.pem; do
    openssl x509 -checkend 5184000 -noout -in "$certificate" > /dev/null || return 1
  done
}
authority tls "manager,$local${2:+,$2}" worker,cli

# Complete or not at all, and only what has changed: the service may be reading it.
hand() {
  cmp -s "$made/$2" "$1/$3" && return
  rm -f "$1/.new"
  cp "$made/$2" "$1/.new"
  chmod 400 "$1/.new"
  mv -f "$1/.new" "$1/$3"
}
for owner in manager worker cli; do
  hand $owner tls/$owner.pem cert.pem
  hand $owner tls/$owner.key key.pem
  hand $owner tls/ca.pem ca.pem
done
hand manager roles/admin.key authkey
hand cli roles/admin.key authkey
hand worker roles/work.key authkey
# The manager has to know each key that it lets in; its own is the one for admin.
mkdir -p manager/roles
for role in submit work read; do
  hand manager roles/$role.key roles/$role.key
done

if [ -n "${3:-}" ]; then
  authority nats "$3,$local" journal
  mkdir -p nats manager/journal
  hand nats nats/manager.pem cert.pem
  hand nats nats/manager.key key.pem
  hand nats nats/ca.pem ca.pem
  hand manager nats/journal.pem journal/cert.pem
  hand manager nats/journal.key journal/key.pem
  hand manager nats/ca.pem journal/ca.pem
fi
