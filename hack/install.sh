#!/usr/bin/env bash
# Installs the programs that tests use and that are not there yet, from Debian's packages.
set -euo pipefail

# program or file | package | what for
needed='
gcc             | gcc             | the race detector
qemu-img        | qemu-utils      | the independent reader and writer of disk images
mke2fs          | e2fsprogs       | file systems in disk images
sfdisk          | fdisk           | partition tables that nobody here wrote
sgdisk          | gdisk           | the independent judge of GPTs
gvnccapture     | gvncviewer      | a VNC client that nobody here wrote
/usr/bin/python3| python3         | a XenAPI client that uses only its standard library
/usr/lib/python3/dist-packages/pyvhdi.cpython-*| python3-libvhdi | the independent reader of differencing VHDs
node            | nodejs          | the XenAPI client from npm
npm             | npm             | the XenAPI client from npm
chromium        | chromium        | the browser that console pages are tried in
websockify      | websockify      | the relay that the gateway is measured against (make bench)
qemu-system-x86_64 | qemu-system-x86 | a VNC server that nobody here wrote
/usr/lib/python3/dist-packages/glance/cmd/api.py| python3-glance | the image service that snapshots are uploaded to
/usr/lib/python3/dist-packages/keystone/cmd/manage.py| python3-keystone | the identity service before it
/usr/bin/glance | python3-glanceclient | the client that comes with the image service
zstd            | zstd            | unpacking what is compressed
curl            | curl            | the S3 client of whoever has only a shell
openssl         | openssl         | opening encrypted console tokens as documented
'

present() {
	case $1 in
	/*) compgen -G "$1" >/dev/null ;;
	*) command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ] ;;
	esac
}

missing=()
while IFS='|' read -r program package _; do
	program=$(echo $program) package=$(echo $package)
	if [ -n "$package" ] && ! present "$program"; then
		missing+=("$package")
	fi
done <<<"$needed"

if [ ${#missing[@]} -eq 0 ]; then
	exit 0
fi
if ! command -v apt-get >/dev/null; then
	echo "Please install: ${missing[*]} (Debian's names; apt-get is not here to do it)" >&2
	exit 1
fi
root=
if [ "$(id -u)" -ne 0 ]; then
	root=sudo
fi
echo "Installing Debian packages for the tests: ${missing[*]}"
$root apt-get update -qq
DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq --no-install-recommends "${missing[@]}"
