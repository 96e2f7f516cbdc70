#!/usr/bin/env bash
# Builds both images: `make images`. Docker does it where its daemon answers, else buildah (Debian: buildah and podman).
# BASE_IMAGE names what they stand on; where the default cannot be fetched, a Debian base is made with debootstrap, which
# needs root. The machine's index of packages and certificates are handed over for the time of the build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
build=${BUILD_DIR:-build/images}
revision=${REVISION:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}
base=${BASE_IMAGE:-docker.io/library/python:3.11-slim-bookworm}
epoch=$(git log -1 --format=%ct 2>/dev/null || echo 0)
buildah=(buildah ${STORAGE_DRIVER:+--storage-driver "$STORAGE_DRIVER"})
mkdir -p "$build"

if docker info >/dev/null 2>&1; then
	make_image=(env DOCKER_BUILDKIT=1 docker build)
elif command -v buildah >/dev/null; then
	make_image=("${buildah[@]}" bud --format docker --isolation chroot --layers --timestamp "$epoch")
else
	echo "error: neither a Docker daemon nor buildah is here: start the one or install the other" >&2
	exit 1
fi

# A Debian base for where no registry of images is reached: Python 3.11 and tini, as the default has or installs them.
debian_base() {
	local root="$build/base" name=localhost/duet-base:bookworm
	if ! "${buildah[@]}" images --quiet "$name" >/dev/null 2>&1; then
		echo "no registry of images is reached: making a Debian base with debootstrap" >&2
		rm -rf "$root"
		debootstrap --variant=minbase --include=ca-certificates,python3-venv,tini bookworm "$root" >"$build/debootstrap.log"
		rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/*
		tar -C "$root" --exclude='./proc/*' --exclude='./sys/*' --exclude='./dev/*' -cf "$build/base.tar" .
		rm -rf "$root"
		printf 'FROM scratch\nADD base.tar /\n' | "${buildah[@]}" bud --quiet --tag "$name" --file - "$build" >/dev/null
		rm "$build/base.tar"
	fi
	echo "$name"
}

if [[ -z "${BASE_IMAGE:-}" && "${make_image[0]}" == buildah ]] && ! timeout 60 "${buildah[@]}" pull --quiet "$base" >/dev/null 2>&1; then
	base=$(debian_base)
fi

# What pip and uv of this machine go by, without what points into its file system.
index="$build/package-index.env"
trap 'rm -f "$index"' EXIT
(
	umask 077
	: >"$index"
	env | grep -E '^(PIP|UV)_[A-Z_]+=' | grep -v -E '=(file:)?/' >>"$index" || true
	python3 -m pip config list 2>/dev/null | while IFS='=' read -r key value; do
		value=${value#\'} value=${value%\'}
		[[ "$value" == */* && "$value" != http* ]] && continue
		case "$key" in
		global.index?url) printf "PIP_INDEX%sURL='%s'\nUV_DEFAULT_INDEX='%s'\n" _ "$value" "$value" ;;
		global.trusted-host) printf "PIP_TRUSTED_HOST='%s'\n" "$value" ;;
		esac
	done >>"$index" || true
)
secrets=(--secret "id=package-index,src=$index")
certificates=${SSL_CERT_FILE:-${PIP_CERT:-}}
if [[ -f "$certificates" ]]; then secrets+=(--secret "id=certificates,src=$certificates"); fi

for target in serving pipelines; do
	echo "building duet-$target on $base"
	"${make_image[@]}" --target "$target" --build-arg "BASE_IMAGE=$base" --build-arg "REVISION=$revision" \
		${CPU_NAME:+--build-arg "CPU_NAME=$CPU_NAME"} "${secrets[@]}" --file infra/docker/Dockerfile \
		--tag "localhost/duet-$target" . >"$build/$target.log" 2>&1 \
		|| { tail -20 "$build/$target.log" >&2; exit 1; }
done
