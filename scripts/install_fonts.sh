#!/usr/bin/env bash
# Install a good set of free Latin fonts for `str-app synth` (Debian or Ubuntu).
#
#   scripts/install_fonts.sh          ≈ 1,500 font files, 200 MB on disk
#   scripts/install_fonts.sh --more   adds the OpenType and TrueType families of texlive-fonts-extra (500 MB download)
#                                     and 486 families of Google Fonts, faces of shops and signs (needs npm; 250 MB)
set -euo pipefail

packages=(
  # signage, display and script faces
  fonts-allerta fonts-apropal fonts-bajaderka fonts-bebas-neue fonts-beteckna fonts-blankenburg fonts-cabinsketch
  fonts-cherrybomb fonts-dancingscript fonts-dseg fonts-engadget fonts-eurofurence fonts-f500 fonts-fantasma
  fonts-ferrite-core fonts-gamaliel fonts-gotico-antiqua fonts-havana fonts-kaushanscript fonts-klaudia-berenika
  fonts-kristi fonts-le-murmure fonts-league-spartan fonts-leckerli-one fonts-lemonada fonts-levien-museum
  fonts-levien-typoscript fonts-lobster fonts-lobstertwo fonts-national-park fonts-okolaks fonts-opendin
  fonts-osifont fonts-radisnoir fonts-rampart fonts-reggae fonts-roadgeek fonts-rocknroll fonts-routed-gothic
  fonts-smiley-sans fonts-solide-mirage fonts-staypuft fonts-stick fonts-train fonts-ubuntu-title
  fonts-yanone-kaffeesatz fonts-aenigma fonts-dustin fonts-linex fonts-woowa-bm fonts-humor-sans fonts-povray
  # handwriting
  fonts-breip fonts-bwht fonts-comic-neue fonts-dkg-handwriting fonts-ecolier-court fonts-femkeklaver fonts-isabella
  fonts-joscelyn fonts-klee fonts-rufscript fonts-sjfonts fonts-summersby fonts-tomsontalks fonts-yusei-magic
  # sans serif
  fonts-arkpandora fonts-averia-gwf fonts-averia-sans-gwf fonts-b612 fonts-cabin fonts-cantarell fonts-clear-sans
  fonts-comfortaa fonts-croscore fonts-crosextra-carlito fonts-dejavu-core fonts-dejavu-extra fonts-dosis
  fonts-freefont-ttf fonts-georgewilliams fonts-go fonts-inter fonts-junction fonts-jura fonts-karla fonts-karmilla
  fonts-lato fonts-liberation fonts-liberation2 fonts-manrope fonts-millimetre fonts-mplus fonts-open-sans
  fonts-opendyslexic fonts-oxygen fonts-paratype fonts-play fonts-quicksand fonts-roboto-unhinted
  fonts-roboto-fontface fonts-sora fonts-tiresias fonts-tuffy fonts-urw-base35 fonts-noto-core fonts-sil-andika
  # serif
  fonts-arapey fonts-averia-serif-gwf fonts-cardo fonts-century-catalogue fonts-cmu fonts-crosextra-caladea
  fonts-ebgaramond fonts-ebgaramond-extra fonts-elstob fonts-essays1743 fonts-fanwood fonts-gfs-artemisia
  fonts-gfs-bodoni-classic fonts-gfs-didot fonts-gfs-neohellenic fonts-goudybookletter fonts-junicode
  fonts-lindenhill fonts-linuxlibertine fonts-lmodern fonts-oldstandard fonts-prociono fonts-quattrocento
  fonts-roboto-slab fonts-sil-charis fonts-sil-gentium-basic fonts-sil-gentiumplus fonts-stix fonts-texgyre
  fonts-vollkorn fonts-yrsa-rasa
  # monospaced, machine and pixel faces
  fonts-3270 fonts-agave fonts-anonymous-pro fonts-compagnon fonts-courier-prime fonts-fantasque-sans fonts-firacode
  fonts-gnutypewriter fonts-hack fonts-hermit fonts-inconsolata fonts-jetbrains-mono fonts-league-mono
  fonts-monofur fonts-mononoki fonts-ocr-a fonts-ocr-b fonts-pc fonts-sixtyfour
  # display families published for another script whose Latin is drawn as well
  fonts-nanum fonts-nanum-extra fonts-thai-tlwg-ttf fonts-sil-gentium fonts-gemunu-libre
  # Arkandis
  fonts-adf-accanthis fonts-adf-baskervald fonts-adf-berenis fonts-adf-gillius fonts-adf-ikarius fonts-adf-irianis
  fonts-adf-libris fonts-adf-mekanus fonts-adf-oldania fonts-adf-romande fonts-adf-solothurn fonts-adf-switzera
  fonts-adf-tribun fonts-adf-universalis fonts-adf-verana
)

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

command -v apt-get >/dev/null || {
  echo "install_fonts.sh needs apt-get (Debian or Ubuntu); elsewhere give a folder of fonts: str-app synth --fonts DIR" >&2
  exit 1
}
as_root apt-get update -q

# Releases differ in what they carry: one missing package must not stop the rest.
available=()
for package in "${packages[@]}"; do
  if apt-cache show "$package" >/dev/null 2>&1; then available+=("$package"); else echo "not in this release: $package"; fi
done
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${available[@]}"

if [ "${1:-}" = "--more" ]; then
  # Unpacked rather than installed: the package depends on a whole TeX system.
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  chmod 755 "$folder"
  (cd "$folder" && apt-get download -q texlive-fonts-extra && dpkg-deb -x texlive-fonts-extra_*.deb unpacked)
  as_root mkdir -p /usr/local/share/fonts/texlive
  for kind in opentype truetype; do
    as_root cp -r "$folder/unpacked/usr/share/texlive/texmf-dist/fonts/$kind" /usr/local/share/fonts/texlive/
  done

  if command -v npm >/dev/null; then
    google=/usr/local/share/fonts/google
    as_root mkdir -p "$google"
    here=$(cd "$(dirname "$0")" && pwd)
    mkdir "$folder/npm" && cd "$folder/npm"
    grep -v '^#' "$here/google_fonts.txt" | tr ' ' '\n' | sed 's/^/@fontsource\//' |
      xargs -P 4 -n 1 sh -c 'npm pack --silent "$0" >/dev/null 2>&1 || echo "not available: $0"'
    for archive in *.tgz; do
      mkdir -p unpacked && tar xzf "$archive" -C unpacked
      family=$(sed -n 's/.*"name": "@fontsource\/\([^"]*\)".*/\1/p' unpacked/package/package.json)
      as_root mkdir -p "$google/$family"
      for weight in 300 400 700 900; do
        for slant in normal italic; do
          file="unpacked/package/files/$family-latin-$weight-$slant.woff"
          if [ -f "$file" ]; then as_root cp "$file" "$google/$family/"; fi
        done
      done
      rm -rf unpacked
    done
  else
    echo "npm is not installed: without the Google Fonts families"
  fi
fi

echo "fonts installed: $(find /usr/share/fonts /usr/local/share/fonts -name '*.[ot]tf' -o -name '*.[OT]TF' -o -name '*.woff' | wc -l) files"
