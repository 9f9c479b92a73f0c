#!/bin/sh
# Installs the system packages that the tests use as real parts. Only as root on a Debian family machine; never fails:
# what is missing is said by the tests themselves (tests/fixtures/parts.py).
set -u
command -v apt-get >/dev/null 2>&1 || exit 0
[ "$(id -u)" = 0 ] || exit 0

wanted=""
command -v mosquitto >/dev/null 2>&1 || [ -x /usr/sbin/mosquitto ] || wanted="$wanted mosquitto"
command -v java >/dev/null 2>&1 || wanted="$wanted default-jre-headless"
command -v mvn >/dev/null 2>&1 || wanted="$wanted maven"
command -v node >/dev/null 2>&1 || wanted="$wanted nodejs"
command -v npm >/dev/null 2>&1 || wanted="$wanted npm"
command -v chromium >/dev/null 2>&1 || wanted="$wanted chromium fonts-noto-cjk"
[ -e /usr/include/modbus/modbus.h ] || wanted="$wanted gcc libc6-dev libmodbus-dev"
[ -n "$wanted" ] || exit 0

echo "installing for the tests:$wanted"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq && apt-get install -y -qq --no-install-recommends $wanted >/dev/null || \
    echo "could not install all of:$wanted (the tests will say what was not tried)"
# Debian starts a mosquitto of its own on port 1883; the tests run theirs.
if command -v service >/dev/null 2>&1; then service mosquitto stop >/dev/null 2>&1 || true; fi
exit 0
