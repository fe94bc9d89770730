"""From a bare Debian or Raspberry Pi OS to a running service, over SSH, without internet there."""
