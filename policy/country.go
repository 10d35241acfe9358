package policy

import "strings"

// alpha3 pairs ISO 3166-1 alpha-2 with alpha-3 codes, since rules in the field use both (the original's own examples
// say UA and USA). XK and XKX are user-assigned codes, in common use for Kosovo.
const alpha3 = `AD AND AE ARE AF AFG AG ATG AI AIA AL ALB AM ARM AO AGO AQ ATA AR ARG AS ASM AT AUT AU AUS AW ABW AX ALA AZ AZE
BA BIH BB BRB BD BGD BE BEL BF BFA BG BGR BH BHR BI BDI BJ BEN BL BLM BM BMU BN BRN BO BOL BQ BES BR BRA BS BHS BT BTN
BV BVT BW BWA BY BLR BZ BLZ CA CAN CC CCK CD COD CF CAF CG COG CH CHE CI CIV CK COK CL CHL CM CMR CN CHN CO COL CR CRI
CU CUB CV CPV CW CUW CX CXR CY CYP CZ CZE DE DEU DJ DJI DK DNK DM DMA DO DOM DZ DZA EC ECU EE EST EG EGY EH ESH ER ERI
ES ESP ET ETH FI FIN FJ FJI FK FLK FM FSM FO FRO FR FRA GA GAB GB GBR GD GRD GE GEO GF GUF GG GGY GH GHA GI GIB GL GRL
GM GMB GN GIN GP GLP GQ GNQ GR GRC GS SGS GT GTM GU GUM GW GNB GY GUY HK HKG HM HMD HN HND HR HRV HT HTI HU HUN ID IDN
IE IRL IL ISR IM IMN IN IND IO IOT IQ IRQ IR IRN IS ISL IT ITA JE JEY JM JAM JO JOR JP JPN KE KEN KG KGZ KH KHM KI KIR
KM COM KN KNA KP PRK KR KOR KW KWT KY CYM KZ KAZ LA LAO LB LBN LC LCA LI LIE LK LKA LR LBR LS LSO LT LTU LU LUX LV LVA
LY LBY MA MAR MC MCO MD MDA ME MNE MF MAF MG MDG MH MHL MK MKD ML MLI MM MMR MN MNG MO MAC MP MNP MQ MTQ MR MRT MS MSR
MT MLT MU MUS MV MDV MW MWI MX MEX MY MYS MZ MOZ NA NAM NC NCL NE NER NF NFK NG NGA NI NIC NL NLD NO NOR NP NPL NR NRU
NU NIU NZ NZL OM OMN PA PAN PE PER PF PYF PG PNG PH PHL PK PAK PL POL PM SPM PN PCN PR PRI PS PSE PT PRT PW PLW PY PRY
QA QAT RE REU RO ROU RS SRB RU RUS RW RWA SA SAU SB SLB SC SYC SD SDN SE SWE SG SGP SH SHN SI SVN SJ SJM SK SVK SL SLE
SM SMR SN SEN SO SOM SR SUR SS SSD ST STP SV SLV SX SXM SY SYR SZ SWZ TC TCA TD TCD TF ATF TG TGO TH THA TJ TJK TK TKL
TL TLS TM TKM TN TUN TO TON TR TUR TT TTO TV TUV TW TWN TZ TZA UA UKR UG UGA UM UMI US USA UY URY UZ UZB VA VAT VC VCT
VE VEN VG VGB VI VIR VN VNM VU VUT WF WLF WS WSM XK XKX YE YEM YT MYT ZA ZAF ZM ZMB ZW ZWE`

// continents are the codes that the place data in the field uses.
var continents = [...]string{"AF", "AN", "AS", "EU", "NA", "OC", "SA"}

// countries maps each alpha-3 code to its alpha-2 code.
var countries = func() map[string]string {
	codes := strings.Fields(alpha3)
	m := make(map[string]string, len(codes)/2)
	for i := 0; i+1 < len(codes); i += 2 {
		m[codes[i+1]] = codes[i]
	}
	return m
}()

// alpha2Of returns the alpha-2 code of a country given by its alpha-3 code, in any case. ok is false for all else.
func alpha2Of(value string) (alpha2 string, ok bool) {
	if len(value) != 3 {
		return "", false
	}
	alpha2, ok = countries[strings.ToUpper(value)]
	return alpha2, ok
}

// knownAlpha2 reports whether value is an alpha-2 code, in any case.
func knownAlpha2(value string) bool {
	value = strings.ToUpper(value)
	for _, alpha2 := range countries {
		if alpha2 == value {
			return true
		}
	}
	return false
}

// alpha2s are the alpha-2 codes.
var alpha2s = func() map[string]bool {
	m := make(map[string]bool, len(countries))
	for _, alpha2 := range countries {
		m[alpha2] = true
	}
	return m
}()

// IsCountry reports whether value is the ISO 3166-1 code of a country, alpha-2 or alpha-3, in any case.
func IsCountry(value string) bool {
	_, alpha3 := alpha2Of(value)
	return alpha3 || alpha2s[strings.ToUpper(value)]
}
