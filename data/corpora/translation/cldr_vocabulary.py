"""CLDR's codes of what the phrases name: few enough that a model meets each often."""

# As lists these codes would take a line each.
# ruff: noqa: SIM905

UNITS = """
    area-acre area-hectare area-square-centimeter area-square-foot
    area-square-kilometer area-square-meter area-square-mile
    consumption-liter-per-100-kilometer digital-byte digital-gigabyte
    digital-kilobyte digital-megabyte digital-terabyte electric-ampere electric-ohm
    electric-volt energy-calorie energy-joule energy-kilocalorie
    energy-kilowatt-hour frequency-gigahertz frequency-hertz frequency-kilohertz
    frequency-megahertz graphics-megapixel graphics-pixel length-centimeter
    length-foot length-inch length-kilometer length-light-year length-meter
    length-mile length-millimeter length-nautical-mile length-yard mass-gram
    mass-kilogram mass-milligram mass-ounce mass-pound mass-tonne power-horsepower
    power-kilowatt power-megawatt power-watt pressure-hectopascal
    speed-kilometer-per-hour speed-knot speed-meter-per-second speed-mile-per-hour
    temperature-celsius temperature-fahrenheit volume-barrel
    volume-cubic-centimeter volume-cubic-kilometer volume-cubic-meter
    volume-deciliter volume-gallon volume-hectoliter volume-liter
    volume-milliliter volume-pint
""".split()

CURRENCIES = """
    AUD BRL CAD CHF CNY CZK DKK EGP EUR GBP HKD HUF ILS INR JPY KRW MXN NOK NZD PLN
    RUB SEK SGD THB TRY UAH USD ZAR
""".split()

TERRITORIES = """
    AE AF AL AM AO AR AT AU AZ BA BD BE BG BO BR BW BY CA CH CL CM CN CO CR CU CY CZ
    DE DK DO DZ EC EE EG ES ET FI FJ FR GA GB GE GH GL GR GT HN HR HT HU ID IE IL IN
    IQ IR IS IT JM JO JP KE KH KR KW KZ LA LB LT LU LV LY MA MC MD ME MG MK MN MT MX
    MY MZ NA NG NI NL NO NP NZ OM PA PE PH PK PL PT PY QA RO RS RU RW SA SD SE SG SI
    SK SN SO SY TH TN TR TZ UA UG US UY UZ VE VN YE ZA ZM ZW
""".split()

LANGUAGES = """
    af ar az be bg bn ca cs cy da de el en eo es et eu fa fi fr ga gl gu he hi hr hu
    hy id is it ja ka kk ko ku la lt lv mk mn mr ms ne nl pl pt ro ru sk sl so sq sr
    sv sw ta th tr uk ur uz vi yi zh zu
""".split()
