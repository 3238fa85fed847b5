package fleet

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// Seed inserts the rows that describe the controllers into a schema that
// CreateSchema made, or updates those that differ, in one transaction. Rows
// that are as they should be are not touched, other rows neither. It refuses
// with an error to overwrite a row that has one of its ids but is another
// device's: a demo fleet belongs into a schema of its own.
func Seed(ctx context.Context, conn *pgx.Conn, schema string, controllers []Controller) error {
	return inSchema(ctx, conn, schema, "seeding metadata", func(tx pgx.Tx) error {
		for _, t := range rows(controllers) {
			if err := t.upsert(ctx, tx); err != nil {
				return fmt.Errorf("writing %q: %w", t.name, err)
			}
		}
		return nil
	})
}

// rows returns the tables' rows in the order in which their foreign keys allow
// to write them.
func rows(controllers []Controller) []*table {
	types := newTable("DeviceType", "DeviceTypeId", "DeviceTypeName", "DeviceTypeId int", "DeviceTypeName text")
	types.add(1, "Controller")
	types.add(2, "Sensor")
	return []*table{
		types, templateRows(controllers), pointRows(controllers),
		deviceRows(controllers), connectorRows(controllers), pinRows(controllers),
	}
}

func templateRows(controllers []Controller) *table {
	t := newTable("DeviceTemplate", "DeviceTemplateId", "DeviceTemplateName",
		"DeviceTemplateId int", "DeviceTypeId int", "DeviceTemplateName text")
	t.add(controllerTemplate, 1, "F2 controller")
	for _, s := range usedTemplates(controllers) {
		t.add(s.TemplateID, 2, s.Name)
	}
	return t
}

func pointRows(controllers []Controller) *table {
	t := newTable("DataPoint", "DataPointId", "DeviceTemplateId",
		"DataPointId int", "DeviceTemplateId int", "Label text", "Offset int", "Length int",
		"DataEncoding text", "DataFormat text", "Decimals int", "Prepend text", "Append text")
	for _, s := range usedTemplates(controllers) {
		for _, p := range s.Points {
			t.add(p.DataPointID, s.TemplateID, p.Label, p.Field.Offset, p.Field.Length,
				p.Field.Encoding.String(), p.Format, p.Field.Decimals, nil, optional(p.Unit))
		}
	}
	return t
}

func deviceRows(controllers []Controller) *table {
	t := newTable("Device", "DeviceId", "Uuid",
		"DeviceId int", "DeviceName text", "DeviceTemplateId int", "ClaimingCode text",
		"SerialNumber text", "Uuid uuid", "MacAddress text", "PcbVersion text")
	for i := range controllers {
		c := &controllers[i]
		t.add(c.ControllerID, "F2 controller "+c.SerialNumber, controllerTemplate, claimingCode(c.MAC),
			c.SerialNumber, uuid(c.MAC, 0), storedMAC(c), "2.1")
		for k, s := range c.Sensors() {
			serial := fmt.Sprintf("%s-%d", c.SerialNumber, k+1)
			t.add(s.DeviceID, s.Name, s.Template.TemplateID, nil, serial, uuid(c.MAC, k+1), nil, nil)
		}
	}
	return t
}

func connectorRows(controllers []Controller) *table {
	t := newTable("Connector", "ConnectorId", "ControllerId",
		"ConnectorId int", "ControllerId int", "ConnectorNumber int", "Mode text")
	for i := range controllers {
		for _, c := range controllers[i].Connectors {
			t.add(c.ConnectorID, controllers[i].ControllerID, c.Number, string(c.Mode))
		}
	}
	return t
}

func pinRows(controllers []Controller) *table {
	t := newTable("Pin", "PinId", "ConnectorId",
		"PinId int", "ConnectorId int", "Position int", "DeviceId int")
	for i := range controllers {
		for _, c := range controllers[i].Connectors {
			for _, component := range c.Components {
				if s := component.Sensor; s != nil {
					t.add(s.PinID, c.ConnectorID, component.Number, s.DeviceID)
				}
			}
		}
	}
	return t
}

// usedTemplates returns each template once, in the order of their first use.
func usedTemplates(controllers []Controller) []*Template {
	var list []*Template
	seen := map[int]bool{}
	for i := range controllers {
		for _, s := range controllers[i].Sensors() {
			if !seen[s.Template.TemplateID] {
				seen[s.Template.TemplateID] = true
				list = append(list, s.Template)
			}
		}
	}
	return list
}

// storedMAC spells every second controller's MAC in upper case, as fleets that
// were entered by hand have both.
func storedMAC(c *Controller) string {
	if c.ControllerID/devicesEach%2 == 1 {
		return strings.ToUpper(string(c.MAC))
	}
	return string(c.MAC)
}

func claimingCode(mac topic.MAC) string {
	sum := digest(mac, -1)
	return fmt.Sprintf("%X-%X", sum[:2], sum[2:4])
}

// uuid is a custom UUID (RFC 9562, version 8) of the k-th device at the MAC.
func uuid(mac topic.MAC, k int) string {
	u := digest(mac, k)
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:16])
}

func digest(mac topic.MAC, k int) [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "f2mesh demo %s %d", mac, k))
}

// optional maps the empty string to NULL.
func optional(s string) any {
	if s == "" {
		return nil
	}
	return s
}
