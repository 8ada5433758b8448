"""Each pack knows a page of its language, lets it pass, and turns pages of the others away."""

import pytest

from tsugiki.corpus.features import compute_features
from tsugiki.corpus.identify import identify, is_language
from tsugiki.corpus.rules import failing, rules_of
from tsugiki.languages import load_pack, pack_codes

PAGES = {
    "ja": """図書館の利用方法について説明します。初めて来館された方は、受付で利用者カードを作ってください。
本を借りるときは、カードと一緒に窓口へお持ちください。一度に十冊まで、二週間借りることができます。
予約した資料が届いたときには、電子メールか電話でお知らせしますので、一週間以内に受け取りに来てください。
雨の日には本が濡れないように、袋を用意してお越しいただけると助かります。
館内では静かに過ごし、飲み物は蓋の付いた容器に入れたものだけを持ち込めます。
子ども向けの読み聞かせの会を、毎月第二土曜日の午後に二階の部屋で開いています。
新しく入った雑誌や新聞は、入口の右側にある棚に並べてあります。
調べたいことがあるときは、遠慮せずに職員に声をかけてください。一緒に資料を探します。
休館日は毎週月曜日と年末年始です。休みのあいだは、玄関の返却箱に本を返すことができます。
古くなった本は年に一度の市で安く売り、その売り上げで新しい絵本を買っています。""",
    "en": """The library is open to everybody who lives in the town, and you do not have to pay for a card.
When you come for the first time, ask at the desk, where a librarian will be glad to show you around.
You may borrow ten books at once and keep them for two weeks, unless somebody else has asked for them.
Please bring a bag with you if it rains, because wet paper is hard to dry and pages stick together.
On the second Saturday of each month we read stories to children in the room on the upper floor.""",
    "de": """Die Bücherei steht allen offen, die in der Stadt wohnen, und der Ausweis kostet nichts.
Wer zum ersten Mal kommt, meldet sich an der Theke, wo man ihm gern alles zeigt und erklärt.
Zehn Bücher dürfen auf einmal ausgeliehen und zwei Wochen lang behalten werden, wenn niemand wartet.
Bei Regen sollte eine Tasche mitgebracht werden, denn nasses Papier ist schwer zu trocknen.
Am zweiten Samstag jedes Monats lesen wir den Kindern im oberen Stockwerk Geschichten vor.""",
    "fi": """Kirjasto on avoinna kaikille kaupungin asukkaille, ja kortti on maksuton myös lapsille.
Kun tulet ensimmäisen kerran, kysy neuvoa tiskiltä, jossa kirjastonhoitaja esittelee tilat mielellään.
Voit lainata kymmenen kirjaa kerrallaan ja pitää ne kaksi viikkoa, ellei joku muu ole varannut niitä.
Sateella kannattaa ottaa mukaan laukku, sillä kastunut paperi on vaikea kuivata ja sivut tarttuvat yhteen.
Joka kuukauden toisena lauantaina luemme lapsille satuja yläkerran huoneessa, ja se on hyvin suosittua.
Vanhat kirjat myydään kerran vuodessa torilla, ja tuotolla ostetaan uusia kuvakirjoja koko perheelle.""",
    "ko": """도서관은 시민이라면 누구나 이용할 수 있으며 회원증은 무료로 만들어 드립니다.
처음 오신 분은 안내 창구에서 신분증을 보여 주시면 직원이 친절하게 이용 방법을 알려 드립니다.
책은 한 번에 열 권까지 빌릴 수 있고 두 주 동안 집에서 읽을 수 있습니다.
예약한 자료가 도착하면 전자 우편이나 전화로 알려 드리니 일주일 안에 찾아가시기 바랍니다.
비가 오는 날에는 책이 젖지 않도록 가방을 가지고 오시면 좋겠습니다.
매달 둘째 토요일 오후에는 이 층에서 어린이를 위한 이야기 모임이 열립니다.
새로 들어온 잡지와 신문은 입구 오른쪽 책장에 놓여 있으니 자유롭게 보시기 바랍니다.
찾고 싶은 자료가 있으면 언제든지 직원에게 물어보세요. 함께 찾아 드리겠습니다.""",
    "zh": """图书馆向全体市民开放，办理借书证不需要任何费用，外地来的朋友也可以在馆内阅读。
第一次来的读者请到服务台登记，工作人员会带您参观并介绍各个阅览室的用途。
每人一次最多可以借十本书，借期为两个星期，如果没有别人预约，还能再延长一次。
下雨的时候请带上袋子，因为弄湿的纸张很难晾干，书页还会粘在一起。
每个月的第二个星期六下午，我们在二楼给孩子们讲故事，欢迎家长陪同参加。
新到的杂志和报纸摆放在入口右侧的架子上，看完以后请放回原来的位置。
如果找不到需要的资料，可以随时向馆员询问，他们会帮助您检索目录。
旧书每年集中出售一次，得到的钱全部用来购买新的图画书。""",
    "hi": """पुस्तकालय नगर के सभी लोगों के लिए खुला है और इसका कार्ड बिना किसी शुल्क के बनता है।
जो पाठक पहली बार आते हैं उनको कर्मचारी पूरा भवन दिखाते हैं और नियम समझाते हैं।
एक बार में दस पुस्तकें ली जा सकती हैं और उन्हें दो सप्ताह तक घर पर रखा जा सकता है।
वर्षा के दिनों में अपने साथ थैला लेकर आएँ, क्योंकि भीगा हुआ कागज़ कठिनाई से सूखता है।
हर महीने के दूसरे शनिवार को ऊपर के कमरे में बच्चों को कहानियाँ सुनाई जाती हैं।
पुरानी किताबें साल में एक बार बेची जाती हैं और उस धन से नई किताबें खरीदी जाती हैं।""",
    "vi": """Thư viện mở cửa cho tất cả người dân trong thành phố và thẻ đọc sách được cấp miễn phí.
Bạn đọc đến lần đầu tiên xin hỏi ở quầy, nơi nhân viên sẽ vui lòng hướng dẫn các phòng.
Mỗi lần bạn có thể mượn mười cuốn sách và giữ chúng trong hai tuần nếu không có ai đăng ký trước.
Khi trời mưa xin mang theo túi, vì giấy bị ướt rất khó khô và các trang sẽ dính vào nhau.
Vào thứ bảy thứ hai của mỗi tháng, chúng tôi kể chuyện cho trẻ em ở căn phòng trên tầng hai.
Sách cũ được bán một lần trong năm, và số tiền đó dùng để mua những cuốn truyện tranh mới.""",
}


def test_pages_stand_here_for_every_pack():
    assert set(PAGES) == set(pack_codes())


@pytest.mark.parametrize("code", pack_codes())
def test_pack_identifies_its_own_page_and_lets_it_pass(code):
    pack, text = load_pack(code), PAGES[code]
    assert is_language(identify(text, pack), pack)
    assert failing(compute_features(text, pack), rules_of(pack)) == []


@pytest.mark.parametrize("code", pack_codes())
def test_pack_turns_pages_of_other_languages_away(code):
    pack = load_pack(code)
    for other, text in PAGES.items():
        if other == code:
            continue
        assert not is_language(identify(text, pack), pack)


@pytest.mark.parametrize(("code", "name"), [(c, n) for c in pack_codes() for n in load_pack(c).rule_sets])
def test_pack_of_every_rule_set_lets_its_own_page_pass(code, name):
    pack = load_pack(code)
    assert failing(compute_features(PAGES[code], pack), rules_of(pack, rule_set=name)) == []
