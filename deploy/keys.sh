#!/bin/sh
# Makes the keys and certificates of a Compose project, once, and hands each service its own: svc-keys DIR [NAME,…]
# DIR has the folders authority (everything), manager, worker and cli. Run again it does what is missing: it signs
# certificates again that end within 60 days, or whose names (NAME: further ones of the manager) have changed.
set -eu
umask 077
cd "$1"
names="manager,localhost,127.0.0.1,::1${2:+,$2}"
made=authority

# A folder gets its name when it is complete, so that a start that is killed leaves nothing halfway.
if [ ! -d $made/roles ]; then
  rm -rf $made/draft
  svc auth generate --all $made/draft
  mv $made/draft $made/roles
fi
if [ ! -d $made/tls ]; then
  rm -rf $made/draft
  svc auth ca $made/draft --names "$names" --clients worker,cli
  printf '%s\n' "$names" > $made/draft/names
  mv $made/draft $made/tls
fi

current() {
  [ "$(cat $made/tls/names)" = "$names" ] || return 1
  for owner in manager worker cli; do
    openssl x509 -checkend 5184000 -noout -in $made/tls/$owner.pem > /dev/null || return 1
  done
}
if ! current; then
  svc auth ca $made/tls --names "$names" --renew
  printf '%s\n' "$names" > $made/tls/names
fi

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
