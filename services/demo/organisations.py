"""The four organisations: their rules, their people, what is complained of, and who does what about it.

Their people and their complainants are invented; so are the numbers, which begin like mobile numbers and belong to nobody
here.
"""

from __future__ import annotations

from importlib import resources
from typing import Any, Final, Literal

from msgspec import Struct

Day = Literal["monday", "tuesday", "friday"]
DAYS: Final[tuple[Day, ...]] = ("monday", "tuesday", "friday")


class Member(Struct, frozen=True, kw_only=True):
    """One of the staff, with a key of their own."""

    id: str
    name: str
    roles: tuple[str, ...]
    unit: str | None = None
    role: Literal["handler", "supervisor"] = "handler"  # of the key


class Act(Struct, frozen=True, kw_only=True):
    """One entry that somebody makes. `text` goes into the vault first."""

    by: str
    kind: str
    data: dict[str, Any] = {}
    text: str | None = None
    on: Day = "monday"


class Complaint(Struct, frozen=True, kw_only=True):
    """What is said, in the words of the tenant's policy, and what is done about it: the name of a plan."""

    draft: dict[str, Any]
    plan: str


class Mail(Struct, frozen=True, kw_only=True):
    sender: str
    name: str
    subject: str
    text: str


class Organisation(Struct, frozen=True, kw_only=True):
    """One tenant.

    Args:
        policy: the name of a ready-made template, or of a document in `policies/`.
        settings: the tenant's choices where the policy leaves them.
        plans: acts by the name of the plan; what has no acts is left lying.
        webhook_map: the form in which its call centre posts, where that is its own.
        table: the rows as one text, and the encoding in which the file is sent.
        mail_plans, table_plans: what becomes of complaints that came by mail and in the table, in turn.
        per_day: complaints a day that its plan takes.
    """

    slug: str
    name: str
    regime: str
    policy: str
    staff: tuple[Member, ...]
    plans: dict[str, tuple[Act, ...]]
    api: tuple[Complaint, ...]
    webhook: tuple[Complaint, ...]
    mails: tuple[Mail, ...]
    table: str
    table_rows: int
    table_bad_rows: int
    encoding: Literal["utf-8", "utf-8-sig", "gb18030"]
    mail_channel: str
    mail_plans: tuple[str, ...]
    table_plans: tuple[str, ...]
    webhook_channel: str
    webhook_map: dict[str, Any] | None = None
    settings: dict[str, Any] = {}
    language: str = "zh"
    per_day: int = 100_000

    @property
    def document(self) -> str | None:
        """The policy's text, for a document of the tenant's own; None for a template."""
        place = resources.files("services.demo").joinpath("policies", f"{self.policy}.yaml")
        return place.read_text(encoding="utf-8") if place.is_file() else None


def person(number: int, name: str, **more: Any) -> dict[str, Any]:
    """A complainant with a mobile number of their own."""
    return {"name": name, "phone": f"+86138{number:08d}", **more}


HOSPITAL: Final = Organisation(
    slug="tcm-hospital",
    name="Chinese-medicine hospital",
    regime="R09",
    policy="r09_tcm_hospital",
    staff=(
        Member(id="wang.li", name="王丽", roles=("handler",), unit="appeals_centre", role="supervisor"),
        Member(id="zhao.min", name="赵敏", roles=("management_director",), unit="management_department"),
        Member(id="chen.jie", name="陈杰", roles=("medical_affairs_director",), unit="medical_affairs"),
        Member(id="li.na", name="李娜", roles=("nursing_director",), unit="nursing_department"),
        Member(id="sun.hao", name="孙浩", roles=("finance_director", "pharmacy_director", "logistics_director")),
        Member(id="guo.wei", name="郭伟", roles=("handler",), unit="general_office"),
    ),
    plans={
        "settled": (
            Act(by="wang.li", kind="step", data={"step": "verified"}),
            Act(by="wang.li", kind="assigned", data={"unit": "management_department", "staff": "zhao.min"}),
            Act(by="zhao.min", kind="responded", text="已与当事人核实，当事人态度生硬属实。"),
            Act(by="wang.li", kind="resolved", data={"outcome": "upheld"}),
            Act(by="wang.li", kind="replied", text="您反映的情况属实，已责成当事人向您致歉。"),
            Act(by="wang.li", kind="archived"),
        ),
        "slow": (
            Act(by="wang.li", kind="step", data={"step": "verified"}),
            Act(by="wang.li", kind="assigned", data={"unit": "medical_affairs", "staff": "chen.jie"}),
            Act(by="chen.jie", kind="responded", on="friday", text="迟到的书面说明。"),
            Act(by="wang.li", kind="resolved", on="friday", data={"outcome": "partly_upheld"}),
            Act(by="wang.li", kind="replied", on="friday", text="处理结果告知，抱歉让您久等。"),
        ),
        "left": (),
    },
    api=(
        Complaint(
            plan="settled",
            draft={
                "channel": "visit",
                "category": "attitude",
                "text": "挂号窗口工作人员说话不耐烦，问了两遍就摔单子。",
                "complainant": person(1, "刘芳", email="liu.fang@example.org"),
                "fields": {"received_unit": "appeals_centre", "facts_clear": True, "relation": "patient"},
            },
        ),
        Complaint(
            plan="settled",
            draft={
                "channel": "phone",
                "category": "fees",
                "text": "住院费用清单里同一项检查收了两次。",
                "complainant": person(2, "陈建国"),
                "fields": {"received_unit": "appeals_centre", "facts_clear": True, "relation": "agent"},
            },
        ),
        Complaint(
            plan="slow",
            draft={
                "channel": "visit",
                "category": "ethics",
                "text": "医生暗示到院外指定药店买药。",
                "complainant": person(3, "周婷", email="zhou.ting@example.org"),
                "fields": {"received_unit": "appeals_centre", "facts_clear": True, "relation": "patient"},
            },
        ),
        Complaint(
            plan="left",
            draft={
                "channel": "phone",
                "category": "nursing",
                "text": "夜间呼叫铃半小时无人应答，老人从床上滑落骨折。",
                "complainant": person(4, "吴强"),
                "fields": {
                    "received_unit": "appeals_centre",
                    "facts_clear": True,
                    "relation": "agent",
                    "main_party": "nurse",
                    "facts": ["fracture"],
                    "medical_cause": False,
                },
            },
        ),
        Complaint(
            plan="left",
            draft={
                "channel": "visit",
                "category": "medical_quality",
                "text": "术后用药与医嘱不符，要求说明。",
                "complainant": person(5, "郑雪", email="zheng.xue@example.org"),
                "fields": {"received_unit": "appeals_centre", "facts_clear": True, "relation": "patient"},
            },
        ),
    ),
    webhook=(
        Complaint(
            plan="settled",
            draft={
                "category": "attitude",
                "text": "热线接线员挂断电话。",
                "complainant": person(6, "冯涛"),
                "fields": {"received_unit": "appeals_centre", "facts_clear": True},
            },
        ),
        Complaint(
            plan="slow",
            draft={
                "category": "discipline",
                "text": "值班医生上班时间玩手机，候诊一个半小时。",
                "complainant": person(7, "蒋丽"),
                "fields": {"received_unit": "appeals_centre", "facts_clear": True},
            },
        ),
        Complaint(
            plan="left",
            draft={
                "category": "logistics",
                "text": "病房热水停了三天。",
                "complainant": person(8, "韩梅"),
                "fields": {"received_unit": "appeals_centre", "facts_clear": True},
            },
        ),
    ),
    mails=(
        Mail(
            sender="he.ping@example.org",
            name="何平",
            subject="关于药房取药等候时间",
            text="连续两次取药等候超过一小时，请改进。",
        ),
        Mail(
            sender="luo.yan@example.org", name="罗艳", subject="Complaint", text="The lift in ward 2 is out of order."
        ),
    ),
    table="""渠道,类别,姓名,电话,内容
box,attitude,谢军,13800000011,导诊台无人值守
letter,premises,唐燕,13800000012,卫生间地面长期湿滑
box,fees,许磊,13800000013,停车费重复收取
box,parking,没有这一类,13800000014,类别写错的一行
""",
    table_rows=4,
    table_bad_rows=1,
    encoding="gb18030",
    mail_channel="letter",
    mail_plans=("slow", "left"),
    table_plans=("settled", "slow", "left"),
    webhook_channel="phone",
)

BANK: Final = Organisation(
    slug="village-bank",
    name="Village bank",
    regime="R17",
    policy="r17_village_bank",
    staff=(
        Member(id="ma.jun", name="马军", roles=("handler_a", "lobby_manager"), unit="branch"),
        Member(id="gao.xin", name="高欣", roles=("handler_b",), unit="branch"),
        Member(id="lin.tao", name="林涛", roles=("branch_head",), unit="branch", role="supervisor"),
        Member(id="xu.jing", name="徐静", roles=("leader_in_charge", "vice_president")),
        Member(
            id="deng.bo",
            name="邓波",
            roles=("general_or_president_office", "bank_management"),
            unit="general_department",
        ),
        Member(id="song.yu", name="宋宇", roles=("president",)),
    ),
    plans={
        "settled": (
            Act(by="ma.jun", kind="step", data={"step": "reception_room"}),
            Act(by="ma.jun", kind="replied", data={"form": "oral"}, text="已当面解释并致谢。"),
            Act(by="lin.tao", kind="resolved", data={"outcome": "upheld"}),
        ),
        "reported": (
            Act(by="ma.jun", kind="classified", data={"severity": "level_2"}),
            Act(by="xu.jing", kind="step", data={"step": "leader_on_site"}),
            Act(by="lin.tao", kind="reported", data={"to": ["general_department"]}),
            Act(by="lin.tao", kind="step", data={"step": "incident_handled"}),
            Act(by="deng.bo", kind="reported", on="tuesday", data={"to": ["founding_bank"]}),
            Act(by="lin.tao", kind="resolved", on="tuesday", data={"outcome": "upheld"}),
        ),
        "slow": (
            Act(by="ma.jun", kind="classified", data={"severity": "level_2"}),
            Act(by="xu.jing", kind="step", data={"step": "leader_on_site"}),
            Act(by="lin.tao", kind="step", data={"step": "incident_handled"}),
            Act(by="deng.bo", kind="reported", on="friday", data={"to": ["founding_bank"]}),
            Act(by="lin.tao", kind="resolved", on="friday", data={"outcome": "partly_upheld"}),
        ),
        "unreported": (
            Act(by="ma.jun", kind="classified", data={"severity": "level_3"}),
            Act(by="lin.tao", kind="step", data={"step": "police_called"}),
            Act(by="xu.jing", kind="step", data={"step": "leader_on_site"}),
            Act(by="lin.tao", kind="step", data={"step": "incident_handled"}),
        ),
        "left": (),
    },
    api=(
        Complaint(
            plan="settled",
            draft={
                "channel": "branch",
                "severity": "level_1",
                "text": "取款机吞卡，柜台让等三天。",
                "complainant": person(21, "曹阳"),
                "fields": {"solvable": True},
            },
        ),
        Complaint(
            plan="reported",
            draft={
                "channel": "branch",
                "severity": "level_1",
                "text": "理财产品亏损，客户在柜台前情绪激动。",
                "complainant": person(22, "彭辉"),
                "fields": {"own_fault": False},
            },
        ),
        Complaint(
            plan="slow",
            draft={
                "channel": "branch",
                "severity": "level_1",
                "text": "多人因贷款利率上调一起来网点。",
                "complainant": person(23, "苏敏"),
                "fields": {"group": True},
            },
        ),
        Complaint(
            plan="unreported",
            draft={
                "channel": "branch",
                "severity": "level_1",
                "text": "客户砸坏取号机。",
                "complainant": person(24, "卢刚"),
                "fields": {"own_fault": True, "person_height": "175"},
            },
        ),
        Complaint(
            plan="settled",
            draft={
                "channel": "letter",
                "text": "反映大堂经理推销保险。",
                "complainant": person(25, "叶秀英", email="ye.xiuying@example.org"),
                "fields": {"vip": True},
            },
        ),
    ),
    webhook=(
        Complaint(
            plan="settled",
            draft={
                "caller": {"name": "程亮", "mobile": "13800000026"},
                "level": "1",
                "notes": "手机银行转账失败扣了手续费。",
            },
        ),
        Complaint(
            plan="slow",
            draft={
                "caller": {"name": "魏红", "mobile": "13800000027"},
                "level": "2",
                "notes": "定期存单被自动转存，客户在电话里大喊。",
            },
        ),
        Complaint(
            plan="left",
            draft={"caller": {"name": "吕强", "mobile": "13800000028"}, "level": "1", "notes": "排队两小时。"},
        ),
    ),
    webhook_map={
        "map": {
            "text": {"at": "/call/notes"},
            "severity": {"at": "/call/level", "values": {"1": "level_1", "2": "level_2", "3": "level_3"}},
            "complainant.name": {"at": "/call/caller/name"},
            "complainant.phone": {"at": "/call/caller/mobile"},
        }
    },
    mails=(
        Mail(sender="ding.hong@example.org", name="丁洪", subject="对账单错误", text="上月对账单余额与实际不符。"),
        Mail(
            sender="ren.yi@example.org",
            name="任毅",
            subject="Account closed",
            text="My account was closed without notice.",
        ),
    ),
    table="""channel,severity,name,phone,text
phone,level_1,姚远,13800000031,短信提醒每月多扣一元
branch,level_1,潘玉,13800000032,零钞兑换被拒绝
phone,level_1,贾明,13800000033,信用卡年费
phone,level_9,不合法,13800000034,没有这个级别
""",
    table_rows=4,
    table_bad_rows=1,
    encoding="utf-8",
    mail_channel="letter",
    mail_plans=("settled", "left"),
    table_plans=("settled", "left", "slow"),
    webhook_channel="phone",
    per_day=13,
)

DEALER: Final = Organisation(
    slug="car-dealer",
    name="Car dealer",
    regime="R38",
    policy="r38_volkswagen_dealer",
    staff=(
        Member(id="fang.hua", name="方华", roles=("caller", "customer_administrator"), unit="care_department"),
        Member(id="yu.lei", name="于磊", roles=("customer_director",), role="supervisor"),
        Member(id="pan.feng", name="潘峰", roles=("sales_director", "retail_manager"), unit="sales_department"),
        Member(
            id="shi.yong", name="石勇", roles=("service_director",), unit="after_sales_department", role="supervisor"
        ),
        Member(
            id="jin.hai",
            name="金海",
            roles=("service_manager", "technical_manager", "claims_clerk"),
            unit="after_sales_department",
        ),
        Member(id="bai.ling", name="白玲", roles=("gm", "management"), role="supervisor"),
    ),
    plans={
        "settled": (
            Act(by="yu.lei", kind="accepted"),
            Act(by="fang.hua", kind="step", data={"step": "slip_passed"}),
            Act(by="shi.yong", kind="step", data={"step": "form_returned", "complete": True}),
            Act(by="shi.yong", kind="replied", text="已为您更换配件，给您带来不便敬请谅解。"),
            Act(by="shi.yong", kind="closed"),
            Act(by="fang.hua", kind="surveyed", data={"rating": "satisfied"}),
            Act(by="fang.hua", kind="followed_up", data={"rating": "satisfied"}),
        ),
        "slow": (
            Act(by="yu.lei", kind="accepted"),
            Act(by="fang.hua", kind="step", on="tuesday", data={"step": "slip_passed"}),
            Act(by="jin.hai", kind="step", on="friday", data={"step": "form_returned", "complete": True}),
            Act(by="shi.yong", kind="closed", on="friday"),
            Act(by="fang.hua", kind="surveyed", on="friday", data={"rating": "satisfied"}),
        ),
        "grown": (
            Act(by="yu.lei", kind="accepted"),
            Act(by="fang.hua", kind="step", data={"step": "slip_passed"}),
            Act(by="shi.yong", kind="step", on="tuesday", data={"step": "growing_recognised"}),
            Act(by="shi.yong", kind="reported", on="tuesday", data={"to": ["gm"]}),
        ),
        "left": (),
        # A letter says neither what it is about nor whom it concerns; somebody reads it and says so.
        "read": (Act(by="yu.lei", kind="classified", data={"kind": "after_sales", "category": "service"}),),
        "read_late": (
            Act(by="yu.lei", kind="classified", data={"kind": "sales", "category": "service"}),
            Act(by="fang.hua", kind="step", on="tuesday", data={"step": "slip_passed"}),
            Act(by="pan.feng", kind="closed", on="friday"),
        ),
    },
    api=(
        Complaint(
            plan="settled",
            draft={
                "channel": "phone",
                "kind": "after_sales",
                "category": "parts_quality",
                "text": "雨刮器更换后一周又坏。",
                "complainant": person(41, "秦朗", email="qin.lang@example.org"),
                "fields": {"form_no": "HSO12.7-7-001", "vehicle": "LSV-0001", "caller": "fang.hua"},
            },
        ),
        Complaint(
            plan="slow",
            draft={
                "channel": "sales_call_back",
                "kind": "sales",
                "category": "service",
                "text": "提车时销售承诺的脚垫没有给。",
                "complainant": person(42, "尹雪"),
                "fields": {"form_no": "HSO12.7-8-001", "caller": "fang.hua"},
            },
        ),
        Complaint(
            plan="grown",
            draft={
                "channel": "on_site",
                "kind": "after_sales",
                "category": "repair_quality",
                "text": "修完刹车后方向盘抖动，高速上很危险。",
                "complainant": person(43, "侯勇"),
                "fields": {"form_no": "HSO12.7-9-001", "vehicle": "LSV-0002", "safety_hazard_after_repair": True},
            },
        ),
        Complaint(
            plan="left",
            draft={
                "channel": "dn_network",
                "kind": "sales",
                "category": "product_quality",
                "text": "新车天窗漏水。",
                "complainant": person(44, "江涛"),
                "fields": {
                    "form_no": "HSO12.7-11-001",
                    "dn_order_no": "DN-2231",
                    "in_warranty": True,
                    "vehicle": "LSV-0003",
                },
            },
        ),
        Complaint(
            plan="settled",
            draft={
                "channel": "letter",
                "kind": "after_sales",
                "category": "service",
                "text": "预约保养到店后等了三小时。",
                "complainant": person(45, "严峻", email="yan.jun@example.org"),
                "fields": {"form_no": "HSO12.7-7-002"},
            },
        ),
    ),
    webhook=(
        Complaint(
            plan="settled",
            draft={
                "kind": "after_sales",
                "category": "parts_quality",
                "text": "电瓶保修期内亏电。",
                "complainant": person(46, "武强"),
                "fields": {"form_no": "HSO12.7-7-003"},
            },
        ),
        Complaint(
            plan="slow",
            draft={
                "kind": "sales",
                "category": "user_problem",
                "text": "上牌材料要来回跑。",
                "complainant": person(47, "范丽"),
                "fields": {"form_no": "HSO12.7-8-002"},
            },
        ),
        Complaint(
            plan="left",
            draft={
                "kind": "after_sales",
                "category": "service",
                "text": "客服没有按约定回电。",
                "complainant": person(48, "钟敏"),
                "fields": {"form_no": "HSO12.7-7-004"},
            },
        ),
    ),
    mails=(
        Mail(sender="tan.bin@example.org", name="谭斌", subject="保养价格", text="同样的保养项目两次报价不同。"),
        Mail(
            sender="lai.yun@example.org",
            name="赖云",
            subject="Noise",
            text="There is a noise from the gearbox since the last service.",
        ),
    ),
    table="""channel,kind,category,name,phone,text
rework,after_sales,repair_quality,樊星,13800000051,返修两次仍漏油
phone,sales,service,邹凯,13800000052,合同上的赠品没有兑现
letter,after_sales,other,熊燕,13800000053,休息区空调坏
phone,sales,discount,不合法,13800000054,没有这一类
""",
    table_rows=4,
    table_bad_rows=1,
    encoding="utf-8-sig",
    mail_channel="letter",
    mail_plans=("read", "read_late"),
    table_plans=("slow", "settled", "left"),
    webhook_channel="after_sales_call_back",
)

SCHOOL: Final = Organisation(
    slug="training-school",
    name="Training school",
    regime="R02",
    policy="school",
    staff=(
        Member(id="hao.ran", name="郝然", roles=("petition_clerk",), unit="school_office"),
        Member(id="gu.ming", name="顾明", roles=("office_director",), unit="school_office", role="supervisor"),
        Member(id="meng.jie", name="孟洁", roles=("vice_principal",), role="supervisor"),
        Member(id="coach.li", name="李教练", roles=("coach",)),
        Member(id="head.qian", name="钱主管", roles=("head_of_coaches",)),
    ),
    plans={
        "settled": (
            Act(by="hao.ran", kind="step", data={"step": "form_filled"}),
            Act(by="gu.ming", kind="step", data={"step": "opinion_given"}),
            Act(by="meng.jie", kind="step", data={"step": "instruction_given"}),
            Act(by="hao.ran", kind="investigated", text="证人证言、当事人说明、调查报告齐备。"),
            Act(by="gu.ming", kind="resolved", data={"outcome": "upheld"}),
            Act(by="hao.ran", kind="approval_requested", data={"step": "decision"}),
            Act(by="meng.jie", kind="approved", data={"step": "decision"}),
        ),
        "slow": (
            Act(by="hao.ran", kind="step", data={"step": "form_filled"}),
            Act(by="gu.ming", kind="step", on="tuesday", data={"step": "opinion_given"}),
            Act(by="meng.jie", kind="step", on="friday", data={"step": "instruction_given"}),
            Act(by="hao.ran", kind="investigated", on="friday"),
            Act(by="gu.ming", kind="resolved", on="friday", data={"outcome": "upheld"}),
            Act(by="hao.ran", kind="approval_requested", on="friday", data={"step": "decision"}),
            Act(by="meng.jie", kind="approved", on="friday", data={"step": "decision"}),
        ),
        "left": (),
    },
    api=(
        Complaint(
            plan="settled",
            draft={
                "channel": "phone",
                "kind": "problem",
                "category": "teaching",
                "text": "教练收了补课费却没有安排上车，考试因此错过。",
                "complainant": person(61, "万里", email="wan.li@example.org"),
                "respondent": {"staff": "coach.li", "supervisor": "head.qian"},
                "fields": {
                    "place": "training_ground",
                    "loss_cny": "3600.00",
                    "performance_pay_cny": "1800.00",
                    "superior_management_pay_cny": "2400.00",
                },
            },
        ),
        Complaint(
            plan="settled",
            draft={
                "channel": "phone",
                "kind": "problem",
                "category": "scolding",
                "text": "教练当众辱骂学员。",
                "complainant": person(62, "段颖"),
                "respondent": {"staff": "coach.li", "supervisor": "head.qian"},
                "fields": {"place": "training_ground", "performance_pay_cny": "1800.00"},
            },
        ),
        Complaint(
            plan="slow",
            draft={
                "channel": "phone",
                "category": "operations",
                "text": "约好的考试名额被改给别人。",
                "complainant": person(63, "雷鸣"),
                "respondent": {"staff": "coach.li", "supervisor": "head.qian"},
                "fields": {"place": "enrolment_hall", "loss_cny": "480.00"},
            },
        ),
        Complaint(
            plan="left",
            draft={
                "channel": "internet",
                "category": "operations",
                "text": "报名费退款拖了一个月。",
                "complainant": person(64, "龙飞", email="long.fei@example.org"),
            },
        ),
        Complaint(
            plan="left",
            draft={
                "channel": "phone",
                "category": "teaching",
                "text": "训练车空调坏了整个夏天。",
                "complainant": person(65, "史册"),
                "fields": {"place": "training_ground"},
            },
        ),
    ),
    webhook=(
        Complaint(
            plan="settled",
            draft={
                "category": "mocking",
                "text": "理论课老师嘲笑学员口音。",
                "complainant": person(66, "陶然"),
                "fields": {"place": "classroom"},
            },
        ),
        Complaint(
            plan="slow",
            draft={"category": "operations", "text": "班车时间随意更改。", "complainant": person(67, "黎明")},
        ),
        Complaint(
            plan="left",
            draft={"category": "operations", "text": "前台电话没人接。", "complainant": person(68, "顾盼")},
        ),
    ),
    mails=(
        Mail(sender="kang.tai@example.org", name="康泰", subject="合同问题", text="合同里没有写明补考费用。"),
        Mail(
            sender="mo.fan@example.org",
            name="莫凡",
            subject="Lessons",
            text="Two lessons were cancelled an hour before.",
        ),
    ),
    table="""channel,category,name,phone,text
box,teaching,安宁,13800000071,科目二场地线看不清
box,operations,常青,13800000072,更衣柜锁坏
phone,insult,乐平,13800000073,教练说话难听
box,weather,不合法,13800000074,没有这一类
""",
    table_rows=4,
    table_bad_rows=1,
    encoding="utf-8",
    mail_channel="internet",
    mail_plans=("slow", "left"),
    table_plans=("settled", "slow", "left"),
    webhook_channel="phone",
)

ORGANISATIONS: Final = (HOSPITAL, BANK, DEALER, SCHOOL)
