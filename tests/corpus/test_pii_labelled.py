"""Personal data in context: a labelled set, on which precision and recall are held."""

import pytest

from tsugiki.corpus.cleaning.pii import mask_personal_data
from tsugiki.languages import load_pack

# Each line: kind and a text in which the personal part stands between «».
JAPANESE = """
phone 電話：«03-1234-5678»
phone お問い合わせは«03-5253-1111»まで。
phone ＴＥＬ　«０３−１２３４−５６７８»
phone TEL«03-1234-5678»
phone Tel: «(03) 1234-5678»
phone TEL.«03(1234)5678» 担当：山田
phone 電話番号は«０３（１２３４）５６７８»です。
phone 電話 «03 1234 5678» 受付時間 9:00-17:00
phone 電話 «0312345678»
phone tel:«0312345678»
phone 大阪支店（«06-6345-2222»）
phone 札幌市役所 «011-211-2111»
phone 仙台 «022-214-1111»、福島 «024-521-7111»
phone 横浜市 «045-671-2121»
phone 役場 «04992-2-0121»
phone 美瑛町 «0166-92-1111»
phone 高山 «0577-32-3333»
phone FAX：«0123-45-6789»
phone ファックス «0467-23-1234»
phone 連絡先：«０４６７−２３−１２３４»
phone 携帯は«090-1234-5678»
phone «090-9876-5432»（山田）
phone «080-1111-2222»へお電話ください
phone 新しい番号は«060-1234-5678»です
phone «070-3333-4444»
phone «０９０−１２３４−５６７８»
phone «090ー1234ー5678»
phone «０９０ー１２３４ー５６７８»
phone «090 1234 5678»
phone «09012345678»
phone 携帯«08012345678»へ
phone «090(1234)5678»
phone «090‐1234‐5678»
phone «090–1234–5678»
phone IP電話 «050-3456-7890»
phone «050-5555-1234» まで
phone フリーダイヤル «0120-123-456»
phone フリーダイヤル«0120-12-3456»（通話料無料）
phone «０１２０−１２３−４５６»
phone «0120123456» へ
phone ナビダイヤル «0570-012-345»
phone «0570-00-1234»
phone «0800-123-4567»（無料）
phone «+81-3-1234-5678»
phone «+81 3 1234 5678»
phone «+81-90-1234-5678»
phone «＋８１−９０−１２３４−５６７８»
phone «+819012345678»
phone «+81(0)3-1234-5678»
phone «+81-(0)45-123-4567»
phone 海外からは«+81-6-6345-2222»へ
phone 米国事務所 «+1-212-555-0123»
phone 韓国 «+82-2-123-4567»
phone ロンドン «+44 20 7946 0958»
phone 電話/FAX «03-3333-4444»
phone 代表　«０４５−６７１−２１２１»　内線　２２
phone 電話でのご予約：«075-123-4567»（10時～18時）
phone 本社 «03-1111-2222»、支社 «06-1111-2222»
phone 「«03-1234-5678»」に電話した。
phone 電話番号 «03.1234.5678»
phone 電話:«(0123)45-6789»
phone 事務局（«099-123-4567»）
phone 那覇 «098-867-0111»。
phone 受付 «0985-12-3456» 宮崎
phone 山口«083-922-4111»
phone ＦＡＸ«０３−９８７６−５４３２»
postal_code 〒«100-0001» 東京都千代田区千代田1-1
postal_code 〒 «100-8111» 千代田
postal_code 〒«１００−８１１１»東京都千代田区
postal_code 〒«1008111»
postal_code 郵便番号：«530-0001»
postal_code 郵便番号 «5300001»
postal_code 住所：«060-0001» 北海道札幌市中央区
postal_code «604-8571» 京都府京都市中京区
postal_code «231-0017»　神奈川県横浜市中区
postal_code （〒«812-0011»）福岡市博多区
postal_code 送り先は«９８０−０８１１»宮城県仙台市です
postal_code «900-0021» 沖縄県那覇市
postal_code 〒«604ー8571» 京都
mail «taro@example.co.jp»
mail メール：«taro.yamada@example.jp»まで
mail «info@example.or.jp»へお送りください。
mail 宛先は「«hanako+news@mail.example.com»」
mail «ｔａｒｏ＠ｅｘａｍｐｌｅ．ｃｏ．ｊｐ»
mail «taro＠example.co.jp»
mail «taro(at)example.co.jp»
mail «taro[at]example.jp» です
mail «taro（アット）example.co.jp»
mail «taro＜at＞example.ne.jp»
mail «taro アットマーク» ではなく «taro_y@example.ac.jp»
mail E-mail:«a@b.jp»
mail mailto:«sales@shop.example.com»
mail «k..suzuki.@docomo.ne.jp»
mail 山田<«yamada@example.go.jp»>
mail «webmaster@xn--wgv71a119e.jp»
mail 日本語«tanaka-k@example.info»日本語
card カード番号は«4111 1111 1111 1111»です
card «4111-1111-1111-1111»
card «4111111111111111»
card «４１１１−１１１１−１１１１−１１１１»
card «5500 0000 0000 0004»
card «5105105105105100»
card «2223 0031 2200 3222»
card «378282246310005»
card «3782 822463 10005»
card «3714-496353-98431»
card JCB «3530 1113 3330 0000»
card «3566002020360505»
card «30569309025904»
card «3056 930902 5904»
card «6011 1111 1111 1117»
card «6011000990139424»
card «4222222222222»
card «4012888888881881» 有効期限 12/30
card «4111 1111 1111 1111» 123
my_number マイナンバー：«123456789018»
my_number 個人番号 «1234-5678-9018»
my_number マイナンバーは«１２３４５６７８９０１８»です
my_number 個人番号（«987654321093»）
my_number My Number: «100000000005»
"""

# What is not found: without the word "My Number" one number of twelve digits in eleven would be masked, and
# ten digits, or groups between spaces, are as often something else than a telephone number.
MISSED = """
my_number «1234 5678 9018»
my_number «9876-5432-1093»
phone «0312345678»
phone «03 1234 5678»
phone 〈«1234-5678»〉
mail taro★example.co.jp
"""

ENGLISH = """
phone Call «(212) 555-0123» today.
phone «212-555-0123»
phone «212.555.0123»
phone Phone: «212 555 0123»
phone «+1 212 555 0123»
phone «+1-212-555-0123»
phone «+1 (212) 555-0123»
phone «1-800-555-0199»
phone «1 (800) 555-0199»
phone Tel. «2125550123»
phone tel: «+12125550123»
phone Fax «(415) 555-0132», Suite 4
phone Mobile: «415 555 0132»
phone call «555-0123» now
phone my cell is «415-555-0132».
phone ring «020 7946 0958»
phone London «020-7946-0958»
phone Manchester «0161 496 0000»
phone «01632 960001»
phone Mobile «07700 900123»
phone «+44 20 7946 0958»
phone «+44 (0)20 7946 0958»
phone «+44 7700 900123»
phone «+49 30 123456789»
phone «+33 1 23 45 67 89»
phone «+81 3 1234 5678»
phone «+61 2 9374 4000»
phone «+91 98765 43210»
phone «+353 1 234 5678»
phone WhatsApp «+55 11 91234-5678»
phone (phone «650-555-0111»)
phone Telephone «650.555.0111»
phone Contact us at «650-555-0111» or «650-555-0112».
phone Fax:«650-555-0113»
phone Tel:«(650)555-0113»
phone «(650) 555-0113», ask for Ann
mail «john.doe@example.com»
mail Write to «jane@mail.example.org».
mail <«a.b-c_d@sub.example.co.uk»>
mail mailto:«root@example.net»?subject=x
mail «o%brien@example.edu»
mail «first+tag@example.io»,
mail "«x1@example.museum»"
mail «ann(at)example.com»
mail «ann [at] example.org»
mail «ANN@EXAMPLE.COM»
mail Contact «team@a1.example.dev» or «press@example.com»
mail name «n@e.co»
mail «some_one@example.travel»;
mail Reply-To: «user123@lists.example.org»
card «4111 1111 1111 1111»
card Visa «4012888888881881»
card card no. «5555-5555-5555-4444»
card «3782 822463 10005» (Amex)
card «6011111111111117»
ip Server «8.8.8.8» is down
ip from «93.184.216.34»:80
ssn SSN «123-45-6789»
ssn «078-05-1120» is a famous one
"""

NOTHING = """
2010-2011年の記録
2010-11-12に公開
2010/11/12 13:14:15
20101112131415
2010-11-12T13:14:15Z
平成22年11月12日（金）
2019-2020-2021
1999-12-31 23:59:59
ISBN 978-4-00-310101-8
ISBN978-4-06-288123-4
ISBN 4-00-310101-4
ISBN-10: 0-201-63361-2
ISBN 9784003101018
ISSN 0028-0836
JAN 4901234567894
JANコード：4902370517859
価格は1,234,567,890円
¥12,345,678
￥１２，３４５，６７８
100,000,000ドル
バージョン 1.2.3.4567
v2.0.10.1234567
バージョン10.0.19041.1234
3.1415926535
円周率は3.14159265358979です
0.123456789
192.168.100.200
10.0.0.1 と 172.16.0.1
8.8.8.8 を使う
人口は12345678人
1234567
12345678
123456789
1234567890
12345678901
123-4567
型番 123-4567
品番：ABC-1234-5678
製品番号1234-5678-9012
製品番号1234-5678-9013
注文番号 20201123-0001-0002
受注No.100-2000-3000
図1-2-3、表4-5-6
1-2-3-4-5-6-7-8
第12345678号
特許第5123456号
特願2010-123456
特開2010-123456号公報
法人番号 7000012050002
法人番号：1010001000005
登録番号T1234567890123
1609459200000
1609459200
UNIX時間 1262304000 から
0xdeadbeef12345678
a1b2c3d4e5f60718293a
550e8400-e29b-41d4-a716-446655440000
00000000-0000-0000-0000-000000000000
4111 1111 1111 1112
4111111111111112
5500 0000 0000 0005
1234 5678 9012 3456
1234567890123456
9999999999999999
0000 0000 0000 0000
4111 1111 1111
123456789012
マイナンバー：123456789012
1234 5678 9012
個人番号 111111111111
午前10:00-11:00、午後13:00-14:30
9:00～17:00
北緯35.681236、東経139.767125
35.6812, 139.7671
身長170.5 体重65.2
5/10/2010, 6/11/2011
売上 1000 2000 3000 4000
10 20 30 40 50 60 70 80
1 2 3 4 5 6 7 8 9 10 11 12
01 02 03 04 05 06 07 08
1000000から2000000まで
1024×768、1920×1080
1920x1080 60Hz
1,000-2,000人
2000-3000-4000
12-34-56-78
0-1-2-3-4-5-6
試合は3-2、5-4、10-9
列車番号 1234M 5678F
0.1-0.2-0.3
0010-0020
0001234
00012345
@taro さん
＠ホーム
@property
user@localhost
root@server
logo@2x.png
icon@3x.jpg
react@18.2.0
lodash@4.17.21
@types/node@18.0.0
https://example.com/@user/12345678
getty@tty1.service
a @ b.com
meet @ example.com
5個@100円
3@4.5
foo@bar
foo@bar@baz
@media (max-width: 600px)
#include <a@b>
1+1=2, 2+2=4
+10% -20%
＋１００円
C++11/14/17/20
+12345
gcc 4.8.5-20150623
linux-4.19.0-16-amd64
kernel 5.10.0-8
2.6.32-431.el6.x86_64
Ubuntu 20.04.3 LTS 2021-08-19
libfoo1.0_1.0.0-1_amd64.deb
sha256: 9f86d081884c7d659a2feaa0c55ad015
MD5 d41d8cd98f00b204e9800998ecf8427e
RFC 5322 と RFC 7230
ISO 8601:2004
JIS X 0208-1990
JIS X 0213:2004
U+3042 U+30A2
http://example.jp/2010/11/12/1234567.html
http://example.jp/?id=1234567890
/var/log/20101112/0001
pid 12345 tid 67890
0x7fff5fbff8a0
1e10 2.5e-7
1234567 × 7654321
100-200-3000
100-200-300
12:34:56.789012
2010.11.12
2010.11.12.1234
１２３４５６７８９０
２０１０年１１月１２日
２０１０−２０１１
３．１４１５９２６５
第1234567890回
No.1234567890
#1234567
Q1-Q4 2010-2014
1603-1868 江戸時代
(1603-1868)
(2010)1234-5678
1234(5678)
電話帳2010-2011年版
電話事業は1985-1990年に拡大
携帯電話の契約数は100,000,000件
郵便番号は7桁です
〒マーク
TEL欄は空白
FAX 1-2
1000-0001 東京都
100-00012 東京都
"""

ENGLISH_NOTHING = """
the years 2010-2011 and 2011-2012
pages 100-200 and 1000-2000
call 911 in 2010
call the function 12 times
hotel 123-4567
Intel 8086-8088
version 212.555.01234
1-2-3-4-5-6-7
123-45-67890
000-12-3456
212-155-0123
112-555-0123
1,234,567,890 dollars
$1234567.89
ISBN 0-19-852663-6
ISBN 978-0-13-110362-7
arXiv:2107.06499
doi:10.1000/182.12345
10.1145/1327452.1327492
bug 1234567
commit 1234567890abcdef
2010-11-12 10:11:12
11/12/2010 at 10:11:12
12345-6789
90210-1234
0.5-0.75-0.875
800-1000-1200
1 000 000 000
12 345 678
300 400 5000
255.255.255.0
3.14.159.2653
git checkout 1234567
decorator @app.route
user@host
n@4
look @ example.org
cell 12-34
fax 2000
phone model 6110
isotope 238-235-234
x = 0123456789
0123456789
"""


def _labelled(block, pack):
    for line in block.strip().split("\n"):
        kind, text = line.split(" ", 1)
        yield kind, text, load_pack(pack)


def _expected(text, kind, pack):
    """The text with its marked parts masked. A marked part without digits and `@` is no personal data."""
    out = []
    for place, part in enumerate(text.replace("»", "«").split("«")):
        personal = place % 2 and not (kind == "mail" and "アットマーク" in part)
        out.append(pack.personal_data.tokens[kind] if personal else part)
    return "".join(out)


def _plain(text):
    return text.replace("«", "").replace("»", "")


POSITIVES = [*_labelled(JAPANESE, "ja"), *_labelled(ENGLISH, "en")]
MISSES = [*_labelled(MISSED, "ja")]
NEGATIVES = [
    *((text, load_pack("ja")) for text in NOTHING.strip().split("\n")),
    *((text, load_pack("en")) for text in ENGLISH_NOTHING.strip().split("\n")),
]


def test_recall_over_the_labelled_set_is_96_percent_and_precision_full():
    missed = sum(mask_personal_data(_plain(text), pack)[1] == {} for _, text, pack in MISSES)
    assert missed == len(MISSES)  # else move the line to those that are found
    assert len(POSITIVES) / (len(POSITIVES) + missed) >= 0.96


def test_labelled_set_has_150_of_each_and_no_doubles():
    assert len(POSITIVES) >= 150
    assert len(NEGATIVES) >= 150
    assert len({(text, pack.code) for _, text, pack in POSITIVES}) == len(POSITIVES)
    assert len({(text, pack.code) for text, pack in NEGATIVES}) == len(NEGATIVES)


@pytest.mark.parametrize(("kind", "text", "pack"), POSITIVES, ids=[text for _, text, _ in POSITIVES])
def test_mask_of_personal_data_replaces_exactly_it(kind, text, pack):
    optional = ("ip", "ssn") if kind in ("ip", "ssn") else ()
    masked, changes = mask_personal_data(_plain(text), pack, optional)
    assert masked == _expected(text, kind, pack)
    assert set(changes) == {kind}


@pytest.mark.parametrize(("text", "pack"), NEGATIVES, ids=[text for text, _ in NEGATIVES])
def test_mask_of_other_numbers_changes_nothing(text, pack):
    assert mask_personal_data(text, pack) == (text, {})
