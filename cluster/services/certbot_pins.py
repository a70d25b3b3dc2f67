"""Releases of certbot and of its plugins that are installed, with the checksums of their files.

Resolved for Python 3.10 to 3.14 on amd64 and arm64, from `certbot` and one plugin at a time, by
`uv pip compile --universal`; checksums are those of the wheels that pip downloads there.
"""

from __future__ import annotations

# By plugin, "" for certbot itself: requirements as pip reads them, and sha256 of their wheels.
PINS: dict[str, dict[str, tuple[str, ...]]] = {
    "": {
        "acme==5.9.0": ("a646011d6c7c843d89c91a901a2bf450752621f6431f19851bec1222c94446bd",),
        "certbot==5.8.0": ("c06793e6a0169b07ee09e11e6a017c7d5a77310055d693fffd66c53363ab87ff",),
        "certifi==2026.10.19.post1": (
            "1324c476b4811eff41a8bc2122cd0bbd4d9c7234c725446d99ab1612b3a7fdd2",
        ),
        "cffi==2.1.1": (
            "194cffa889098ced9976c3fc6340305e43f6303657d298da55366907c05c22d6",
            "3311ed60d36f83378794e1009ac6258bafbf81f7888b4caa7b35a521e3f95813",
            "34e261f78cb6ceaaa36f42f2613f4380d94d9c759a9c73c769ee6e0247364632",
            "58acb8ab8e295e6c5ea12f888cbb13cf21511ef2a3303a23f4325c29d17fe5c1",
            "5a59cc1c4442bc3d5c703bf720b51138d0bfc173618807c9ee2490a7541dd3d9",
            "68e62fe11f30d5ca8289242866f0a5291402d8529ca2178ab8afc5c9694ae890",
            "a931079504ecc49efed7744c476a5c343a92fabf66dec2db95edb1b2fdc770e2",
            "b0431303acaea1089ad4b3e9ce4e6518193def1118d4073ca848635ee4ea2e96",
            "c1453022f490d2459a11819d83ad1d586e9ff65a12ac3e705ffebd46d3685dcf",
            "f16c709686a78c727bbbf059f92b0bf41c6fc60deec706d2dc19f529175a6125",
        ),
        "charset-normalizer==3.5.3": (
            "2a6f937e0b70133d1f826d0a253331b6fe1a4c874808cc12e16f2fb8177042f4",
            "61e32fdbf56f4cd25a1efa451c8b5fe886fc5e00143ccaacafdf21f301fad059",
            "656b9744bac4493561d28b56d7d646afd7a8471254ef7004d849aa8368020037",
            "70f65dd0c2ed79ea2d9776096e9c7d25e398c2c03eb31877753598d201d91784",
            "90b1ff6cb9c7a204a3b79b1b0ed6ac8a1d8fed3b6dc69e50ae5de0f358ee81d4",
            "92ddc32b6a1508ea145f4f7995e00666db454b8fd3e2cae6c2ecbde4f4d44616",
            "b6dad86d938104f9d43404029e5fc8392f82762d171933be4f192a6008bffa53",
            "e5e4785d8a0adeadfbdf75f4efc357911842674651cbafd7e97f69b11ec3cbc6",
            "ee9de080e8d6221bbe4ba2667367b1cee0f47a53f60ffc5e431b698cd2f2b214",
            "fd0341b9dea133d187d7c5a2cd7e21ae6449a7b68ea8c2454f9cf77def11ec1b",
        ),
        "configargparse==1.9.0": (
            "e4ecc54d821ca97c43e6152403f40e158aff79d809c3447746fa92b136dc1e31",
        ),
        "configobj==5.0.9": ("1ba10c5b6ee16229c79a05047aeda2b55eb4e80d7c7d8ecf17ec1ca600c79882",),
        "cryptography==50.0.2": (
            "630ebfea3bf689d075f82316324ff7433dc447fe6bc1bfc76524b74b4a9567d2",
            "79def8d059362e7831389ed3be0ecdf58a89386e1271e35dd9f5af84e81bffd0",
            "c5e67125c7dca78d199ec4e116aa93dbb83494808ecbb8211a2cb09b1bf41dbd",
            "ee247f5c245c9a2fe7c8e2214e295918838e44e00a45a6718451e4004219e767",
        ),
        "distro==1.9.0": ("7bffd925d65168f85027d8da9af6bddab658135b840670a223589bc0c8ef02b2",),
        "idna==3.20": ("ab7ae7122974553370f0bdb919e1a960b2cd1bc1ef0276416d896db81c14582c",),
        "josepy==2.2.0": ("63e9dd116d4078778c25ca88f880cc5d95f1cab0099bebe3a34c2e299f65d10b",),
        "parsedatetime==2.6": ("cb96edd7016872f58479e35879294258c71437195760746faffedb692aef000b",),
        "pycparser==3.11 ; python_full_version < '3.11'": (
            "51d5a8ba2be0bbe440b99d2112604c95bbbc3c2748a64260186c541e1729cd80",
        ),
        "pycparser==3.12 ; python_full_version >= '3.11'": (
            "a076f3f489b39b43ed13563a1dafe42447445bec2e294154ec5c57fcdda4c85e",
        ),
        "pyopenssl==26.4.0": ("f0eb0cb2d581d3ad2b9c489468485e7f2ab6727d08401bcf9d824c3caddf3c1c",),
        "pyrfc3339==2.1.0 ; python_full_version < '3.11'": (
            "560f3f972e339f579513fe1396974352fd575ef27caff160a38b312252fcddf3",
        ),
        "pyrfc3339==2.1.1 ; python_full_version >= '3.11'": (
            "4973172cb8b29c14caca7f76e6a52890d9e59ec2722dd5eb29b7fdd9fda2232f",
        ),
        "requests==2.34.2": ("2a0d60c172f83ac6ab31e4554906c0f3b3588d37b5cb939b1c061f4907e278e0",),
        "typing-extensions==4.16.0": (
            "481caa481374e813c1b176ada14e97f1f67a4539ce9cfeb3f350d78d6370c2e8",
        ),
        "urllib3==2.8.0": ("0cf3cae568d36aa9576b28dfb35f11328f1cb974ca7647d9475ebb86c75ac6e3",),
    },
    "dns-ionos": {
        "certbot-dns-ionos==2024.11.9": (
            "333be82806ae28a02c979baa8eb0bbc4862ad26549f60685468fadbf1fe3609e",
        ),
        "mock==5.2.0": ("7ba87f72ca0e915175596069dbbcc7c75af7b5e9b9bc107ad6349ede0819982f",),
        "requests-mock==1.12.1": (
            "b1e37054004cdd5e56c84454cc7df12b25f90f382159087f4b6915aaeef39563",
        ),
        "setuptools==84.2.1": ("ca140b45d5325a9478f880e351484f62fef15f336462e449ca0c03c873d589c2",),
    },
    "dns-cloudflare": {
        "annotated-types==0.8.0": (
            "f072f4d804ea359e4eaf198b1af7a8b0943881a87f31bb764f8bf219bb9419e0",
        ),
        "anyio==4.16.0": ("c66ae634e0b8228396b801741beb3294326d4b6102f7bba4041c0dfb58c29026",),
        "certbot-dns-cloudflare==5.8.0": (
            "372276cb7477af4799cffe22bb1ebb2dd6e9e226d0126117431e3a83866f8e3e",
        ),
        "cloudflare==5.9.0": ("70f0c966c26802837fe7ebe95a7b4a14c723159e742bc49d34642b21a2dc11b5",),
        "exceptiongroup==1.3.2 ; python_full_version < '3.11'": (
            "41c6a70dfec22050d3d8b43386b059a4dc0bca3f3d40a40971cb206fff1785af",
        ),
        "h11==0.16.0": ("63cf8bbe7522de3bf65932fda1d9c2772064ffb3dae62d55932da54b31cb6c86",),
        "httpcore==1.0.9": ("2d400746a40668fc9dec9810239072b40b4484b640a8c38fd654a024c7a1bf55",),
        "httpx==0.28.1": ("d909fcccc110f8c7faf814ca82a9a4d816bc5a6dbfea25d6591d6985b8ba59ad",),
        "pydantic==2.14.4": ("653a2ad9f6d8858529c77c72717d0ea991d6c6837fe683246b2f4b2bbfc3fadc",),
        "pydantic-core==2.50.5": (
            "07a62d44515d674d750cfd86b7ce1dd93111be870f378d7c27b37aeb78d0cb4a",
            "252ce30d79b47954cc3a49f8a0d812ac24a356627391fcec90a68733c755707e",
            "27bc22dc8d50335bc62296261a7dc4c2572149910ba7c274ef0f945b5be0d570",
            "470bbc2495367f60d3ca849a8039e4c164701d10637e7743f4427d92651bdb6d",
            "488319076ec92908b91fc6265ce761f1d78748f69f85518564fd16bf333e1b70",
            "88b543705849d0c59343f97c38296dbf59eb7b3c9565bd4fe1ed638ba38da5ed",
            "8bbe282e79dc71b24ba7be284eacf27c8ddff8f26911e2030a0dd123c6aed326",
            "92c0ebab606f982730aaaa741a30cd5e0f68dc7c005a5baa9b332fc182232c61",
            "ba2b34529984a8e3cb1bc62a7687617722695a2cb4e57958de32a0eba128a07a",
            "cbfde3ad127786f1dea1a6cd89a5eb824a16203f24743ad2b4e07506f43bc844",
        ),
        "sniffio==1.3.1": ("2f6da418d1f1e0fddd844478f41680e794e6051915791a034ff65e5f100525a2",),
        "typing-inspection==0.4.5": (
            "bc210535442b39e1bf2805e0c7a17dfd6a4ace760c84c7f7d16245d23a6b1c39",
        ),
    },
    "dns-route53": {
        "boto3==1.44.8": ("099caf21553bbbfef118904aa02fadb8776a534704cf00bede0ed9f29a4da88e",),
        "botocore==1.44.8": ("76342a76c338701db80dcb8afe1c9bd079283d6fffbb9d881442abb02a215043",),
        "certbot-dns-route53==5.8.0": (
            "92f7bd92ccec02dc9a9f37924c15871f2bd768fad65acf5c525933189e8e248a",
        ),
        "jmespath==1.1.0": ("a5663118de4908c91729bea0acadca56526eb2698e83de10cd116ae0f4e97c64",),
        "python-dateutil==2.9.0.post0": (
            "a8b2bc7bffae282281c8140a97d3aa9c14da0b136dfe83f850eea9a5f7470427",
        ),
        "s3transfer==0.19.3": ("24eb7535804306355e31c952a90022bf5b2f9d760f9a11062c7493a217c08553",),
        "six==1.17.0": ("4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274",),
    },
    "dns-rfc2136": {
        "certbot-dns-rfc2136==5.8.0": (
            "d18c089078c0674e23c1c44675e35c3669c69727b80558f40b402e6c981098e9",
        ),
        "dnspython==2.8.0 ; python_full_version < '3.11'": (
            "01d9bbc4a2d76bf0db7c1f729812ded6d912bd318d3b1cf81d30c0f845dbf3af",
        ),
        "dnspython==2.9.2 ; python_full_version >= '3.11'": (
            "af15f7d385a6ae2fb35a796fde2138004c8c42c7389090e2addc83e3b3340fd8",
        ),
    },
}


def requirements(plugin: str) -> str:
    """The file for `pip install --require-hashes`; of another plugin it has certbot alone."""
    wanted = PINS[""] | (PINS.get(plugin, {}) if plugin else {})
    return "".join(
        f"{release} {' '.join(f'--hash=sha256:{value}' for value in sums)}\n"
        for release, sums in wanted.items()
    )
