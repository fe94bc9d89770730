# What the gateway's apt works with, as KEY=VALUE lines; nothing is changed.
say() { printf '%s=%s\n' "$1" "$2"; }
say edge_tsad_packages 1
say system "$( (. /etc/os-release && printf %s "$ID") 2>/dev/null)"
say release "$( (. /etc/os-release && printf %s "$VERSION_CODENAME") 2>/dev/null)"
say architecture "$(dpkg --print-architecture 2>/dev/null)"
apt-get indextargets --format \
  'source=$(CREATED_BY) $(ARCHITECTURE) $(REPO_URI) $(RELEASE) $(COMPONENT) $(SIGNED_BY)' 2>/dev/null |
  grep '^source=Packages '
cd /
# Readable by everybody on Debian; what is missing is left out.
set --
for file in var/lib/dpkg/status etc/apt/trusted.gpg.d/* etc/apt/keyrings/* usr/share/keyrings/*; do
  [ -f "$file" ] && [ -r "$file" ] && set -- "$@" "$file"
done
say files "$(tar -c -h "$@" 2>/dev/null | gzip -c | base64 -w0)"
say end 1
